"""``python -m medfewshot``."""

from medfewshot.cli import main

if __name__ == "__main__":
    main()
