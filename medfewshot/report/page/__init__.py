"""One self-contained HTML page about a run: a table, plots, pictures and a three-plane viewer; no network to open it.

Everything that came from a file or a header is escaped, and a content security policy lets the browser run the page's
two scripts and nothing else. The viewer is NiiVue (``assets/niivue.umd.js``, BSD-2-Clause, see
``assets/NIIVUE-LICENSE.txt``); it needs WebGL 2, and where that is missing the page says so and keeps its pictures.
"""
