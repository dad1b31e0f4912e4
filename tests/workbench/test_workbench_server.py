"""The server refuses strangers, confines paths, bounds sizes, and answers every error with one sentence."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
from pathlib import Path
from urllib.parse import urlencode

import nibabel as nib
import numpy as np
import pytest
from workbench_toys import SHAPE, TOKEN, ThresholdJobs, make_project, serving, write_phantom

from medfewshot.errors import InputError
from medfewshot.workbench import Project, Structure
from medfewshot.workbench.guard import LARGEST_MASK, LARGEST_TEXT
from medfewshot.workbench.masks import pack
from medfewshot.workbench.server import free_port

ONE = [Structure("tumour", 1, "#ff0000")]
WHOLE = f"0,{SHAPE[0]},0,{SHAPE[1]},0,{SHAPE[2]}"


class Client:
    """Requests to a workbench, with or without its token."""

    def __init__(self, url: str) -> None:
        self.address = url.split("/")[2]

    def __call__(self, method, path, query=None, body=None, *, token=TOKEN, headers=None):
        connection = http.client.HTTPConnection(self.address, timeout=30)
        given = {"Host": self.address, **({"Authorization": f"Bearer {token}"} if token else {}), **(headers or {})}
        connection.request(method, path + (f"?{urlencode(query)}" if query else ""), body, given)
        answer = connection.getresponse()
        answer.data = answer.read()
        connection.close()
        return answer

    def json(self, *args, **more):
        return json.loads(self(*args, **more).data)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    project = make_project(tmp_path_factory.mktemp("bench"), scans=2, structures=ONE)
    with serving(project) as url:
        yield project, Client(url)


@contextlib.contextmanager
def bench(folder: Path, **more):
    project = make_project(folder, scans=2, structures=ONE)
    with serving(project, **more) as url:
        yield project, Client(url)


def one_sentence(answer, status):
    """The error's text; it must be JSON and show nothing of the program."""
    assert answer.status == status, answer.data
    text = json.loads(answer.data)["error"]
    assert "Traceback" not in text
    assert ".py" not in text
    return text


# --- who may ask ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/api/project", "/api/case?case=scan_0", "/api/scan?case=scan_0", "/api/events", "/nothing"]
)
@pytest.mark.parametrize("token", [None, "wrong", TOKEN[:-1], TOKEN + "x", "ü"])
def test_no_token_no_answer(shared, path, token):
    headers = {"Authorization": b"Bearer \xfc"} if token == "ü" else None
    answer = shared[1]("GET", path, token=None if headers else token, headers=headers)
    assert "token" in one_sentence(answer, 401)


def test_the_page_needs_the_token_in_its_address(shared):
    _, client = shared
    one_sentence(client("GET", "/"), 401)
    one_sentence(client("GET", "/", {"token": "wrong"}, token=None), 401)
    assert client("GET", "/", {"token": TOKEN}, token=None).status == 200
    one_sentence(client("GET", "/api/project", {"token": TOKEN}, token=None), 401)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "192.168.1.5", "[::2]:9", ""]
)
def test_another_host_name_is_refused(shared, host):
    """A domain that was pointed at this machine (DNS rebinding)."""
    one_sentence(shared[1]("GET", "/api/project", headers={"Host": host}), 421)
    one_sentence(shared[1]("GET", "/static/main.js", headers={"Host": host}), 421)


def test_local_names_are_known(shared):
    for host in ("localhost:80", "127.0.0.1:1", "[::1]:80"):
        assert shared[1]("GET", "/api/project", headers={"Host": host}).status == 200


def test_headers(shared):
    for path in ("/static/main.js", "/api/project", "/nothing"):
        headers = shared[1]("GET", path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert not any(name.startswith("access-control") for name in map(str.lower, headers))
        assert "server" not in headers
    assert (
        "access-control-allow-origin"
        not in shared[1]("OPTIONS", "/api/project", headers={"Origin": "http://evil.example"}).headers
    )


# --- paths ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/static/../server.py", "/static/..%2fserver.py", "/static/%2e%2e/guard.py", "/static//etc/passwd", "/static/",
     "/static/..%5cserver.py", "/api/../static/x", "//etc/passwd"],
)  # fmt: skip
def test_no_path_leads_out(shared, path):
    one_sentence(shared[1]("GET", path), 404)


@pytest.mark.parametrize(
    "name", ["../scans/scan_0", "/etc/passwd", "", "scan_0/../scan_1", "scan_0\0", "x" * 9000, "<b>\n"]
)
def test_a_case_is_a_name_and_no_path(shared, name):
    for path in ("/api/case", "/api/scan", "/api/mask"):
        text = one_sentence(shared[1]("GET", path, {"case": name}), 400)
        assert len(text) < 300


# --- sizes and forms --------------------------------------------------------------------------------------------


def test_large_bodies_are_not_read(shared):
    _, client = shared
    for method, path, most in [
        ("POST", "/api/review", LARGEST_TEXT),
        ("PUT", "/api/mask?box=0,1,0,1,0,1", LARGEST_MASK),
    ]:
        answer = client(method, path, headers={"Content-Length": str(most + 1)})
        assert "larger" in one_sentence(answer, 413)


def test_chunks_are_bounded_too(shared):
    def chunks():
        for _ in range(3 * (LARGEST_TEXT >> 16)):
            yield b"x" * (1 << 16)

    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the server had heard enough
        one_sentence(shared[1]("POST", "/api/review", body=chunks()), 413)


def test_a_small_body_that_unpacks_to_much_is_refused(shared):
    body = pack(np.zeros((400, 400, 400), np.uint8))
    assert len(body) < 1 << 20
    one_sentence(shared[1]("PUT", "/api/mask", {"case": "scan_0", "version": 0, "box": WHOLE}, body), 400)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b"[" * 100_000, b'{"case": 3}', b"\xff", b'{"case": "scan_0", "status": "x"}']
)
def test_odd_reviews_get_a_sentence(shared, body):
    one_sentence(shared[1]("POST", "/api/review", body=body), 400)


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"box": "1,2"},
        {"box": "a,b,c,d,e,f"},
        {"box": "0,99,0,9,0,9"},
        {"box": "3,3,0,1,0,1"},
        {"box": "-1,2,0,1,0,1"},
        {"box": "0,1,0,1,0,1", "version": "x"},
        {"box": "0,1,0,1,0,1", "drawn": "99", "plane": 2},
        {"box": "0,1,0,1,0,1", "drawn": "1"},
    ],
)
def test_odd_masks_get_a_sentence(shared, query):
    one_sentence(shared[1]("PUT", "/api/mask", {"case": "scan_0", **query}, pack(np.zeros((1, 1, 1), np.uint8))), 400)


@pytest.mark.parametrize(
    "structures",
    [
        {},
        [1],
        [{"name": "a"}],
        [{"name": "a\nb", "value": 1, "color": "#ffffff"}],
        [{"name": "a", "value": 300, "color": "#ffffff"}],
        [{"name": "a", "value": 1, "color": "red;}"}],
        [{"name": ["a"], "value": 1, "color": "#ffffff"}],
    ],
)
def test_odd_structures_get_a_sentence(shared, structures):
    project, client = shared
    one_sentence(client("PUT", "/api/structures", body=json.dumps(structures)), 400)
    assert list(project.structures) == ONE


def test_a_new_structure_gets_a_value_of_its_own(tmp_path):
    with bench(tmp_path) as (project, client):
        old, new = vars(project.structures[0]), {"name": "new", "value": 0, "color": "#ffffff"}
        for wanted in (2, 3):
            answer = client.json("PUT", "/api/structures", body=json.dumps([old, new]))
            assert answer["structures"] == [old, {**new, "value": wanted}]
            client("PUT", "/api/structures", body=json.dumps([old]))


def test_structures_of_a_stale_page_are_refused(tmp_path):
    with bench(tmp_path) as (project, client):
        old, new = vars(project.structures[0]), {"name": "new", "value": 0, "color": "#ffffff"}
        for name, status in (("first", 200), ("second", 409)):
            body = json.dumps([old, {**new, "name": name}])
            answer = client("PUT", "/api/structures", {"known": json.dumps([old])}, body)
            assert answer.status == status
        assert "changed elsewhere" in one_sentence(answer, 409)
        assert [one.name for one in project.structures] == ["tumour", "first"]


def test_of_two_tabs_that_rename_a_structure_the_second_is_refused(tmp_path):
    with bench(tmp_path) as (project, client):
        old = vars(project.structures[0])
        for name, status in (("first", 200), ("second", 409)):
            body = json.dumps([{**old, "name": name}])
            answer = client("PUT", "/api/structures", {"known": json.dumps([old])}, body)
            assert answer.status == status
        assert [one.name for one in project.structures] == ["first"]
        one_sentence(client("PUT", "/api/structures", {"known": "1,"}, body), 400)


def test_wrong_methods_and_tools(shared):
    one_sentence(shared[1]("DELETE", "/api/mask"), 405)
    one_sentence(
        shared[1]("POST", "/api/tool", {"case": "scan_0", "tool": "x", "box": WHOLE}, pack(np.zeros(SHAPE, np.uint8))),
        400,
    )
    one_sentence(shared[1]("POST", "/api/tool", {"case": "scan_0", "tool": "click", "seed": "1,2,999"}), 400)
    for reach in ("-5", "1e300"):
        query = {"case": "scan_0", "tool": "click", "seed": "18,20,12", "reach": reach}
        assert "reach" in one_sentence(shared[1]("POST", "/api/tool", query), 400)


def test_our_own_mistake_shows_nothing_of_the_program(tmp_path, capfd):
    class Broken(ThresholdJobs):
        def start_learn(self, *, open_case):
            raise RuntimeError("secret detail")

    project = make_project(tmp_path, scans=1)
    with serving(project, Broken(project)) as url:
        assert "secret" not in one_sentence(Client(url)("POST", "/api/learn", body="{}"), 500)


# --- saving -----------------------------------------------------------------------------------------------------


def test_a_region_is_saved_and_comes_back(tmp_path):
    with bench(tmp_path) as (project, client):
        assert client("GET", "/api/mask", {"case": "scan_0"}).status == 204
        first = np.zeros(SHAPE, np.uint8)
        first[3:6, 4:9, 10] = 1
        saved = client.json(
            "PUT", "/api/mask", {"case": "scan_0", "version": 0, "box": WHOLE, "plane": 2, "drawn": "10"}, pack(first)
        )
        assert saved == {"version": 1}
        dot = {"case": "scan_0", "version": 1, "box": "0,1,0,1,10,11", "plane": 2, "drawn": "10"}
        assert client.json("PUT", "/api/mask", dot, pack(np.ones((1, 1, 1), np.uint8))) == {"version": 2}
        first[0, 0, 10] = 1
        assert np.array_equal(project.read_labels("scan_0"), first)
        assert project.facts("scan_0").drawn == (10,)
        answer = client("GET", "/api/mask", {"case": "scan_0"})
        facts = {"version": 2, "draft": 0, "is_draft": False, "drawn": [10], "plane": 2}
        assert json.loads(answer.headers["x-facts"]) == facts
        assert answer.data == pack(first)


def test_a_stale_version_is_refused_and_loses_nothing(tmp_path):
    with bench(tmp_path) as (project, client):
        query = {"case": "scan_0", "version": 0, "box": WHOLE}
        assert client("PUT", "/api/mask", query, pack(np.ones(SHAPE, np.uint8))).status == 200
        answer = client("PUT", "/api/mask", query, pack(np.zeros(SHAPE, np.uint8)))
        assert one_sentence(answer, 409)
        assert json.loads(answer.data)["current"] == 1
        assert project.read_labels("scan_0").all()


def test_a_draft_that_changed_meanwhile_is_no_base(tmp_path):
    """The first mask of a case is what the page sends, whatever draft is on disk by now."""
    with bench(tmp_path) as (project, client):
        project.write_draft("scan_0", np.ones(SHAPE, np.uint8), confidence=0.5)
        client(
            "PUT",
            "/api/mask",
            {"case": "scan_0", "version": 0, "box": "0,1,0,1,0,1"},
            pack(np.ones((1, 1, 1), np.uint8)),
        )
        assert project.read_labels("scan_0").sum() == 1


def test_a_disk_that_refuses_is_named(tmp_path):
    with bench(tmp_path) as (project, client):

        class Refusing(Project):
            def save_mask(self, *args, **more):
                raise OSError(self.code, "refused", str(self.folder / "labels"))

        project.__class__ = Refusing
        body, query = pack(np.ones(SHAPE, np.uint8)), {"case": "scan_0", "version": 0, "box": WHOLE}
        refusals = [(errno.ENOSPC, "disk is full"), (errno.EROFS, "no permission"), (errno.EACCES, "no permission")]
        for code, words in refusals:
            project.code = code
            assert words in one_sentence(client("PUT", "/api/mask", query, body), 507)


def test_a_missing_and_a_damaged_scan_get_a_sentence(tmp_path):
    with bench(tmp_path) as (_, client):
        (tmp_path / "scans/scan_0.nii.gz").unlink()
        (tmp_path / "scans/scan_1.nii.gz").write_bytes(b"\x1f\x8b" + b"x" * 100)
        for name in ("scan_0", "scan_1"):
            assert name in one_sentence(client("GET", "/api/case", {"case": name}), 400)
        assert len(client.json("GET", "/api/project")["cases"]) == 2


def test_a_scan_that_was_replaced_is_read_again_and_takes_nothing_that_was_drawn_on_the_old_one(tmp_path):
    """It is mirrored, and learning has read it since: what is drawn would land on the other side."""
    with bench(tmp_path) as (project, client):
        before = client.json("GET", "/api/case", {"case": "scan_0"})
        drawn = {"case": "scan_0", "box": WHOLE, "plane": 2, "drawn": "10", "scan": before["stamp"]}
        body = pack(np.ones(SHAPE, np.uint8))
        assert client.json("PUT", "/api/mask", drawn | {"version": 0}, body) == {"version": 1}
        write_phantom(tmp_path / "scans/scan_0.nii.gz", affine=np.diag([-1.0, 1, 1, 1]))
        project.read_scan("scan_0")
        assert "was replaced" in one_sentence(client("PUT", "/api/mask", drawn | {"version": 1}, body), 400)
        assert project.facts("scan_0").version == 1
        after = client.json("GET", "/api/case", {"case": "scan_0"})
        assert after["affine"][0][3] == before["affine"][0][3] - SHAPE[0] + 1
        assert "lies on another grid" in one_sentence(client("GET", "/api/mask", {"case": "scan_0"}), 400)


# --- tools and jobs ---------------------------------------------------------------------------------------------


def test_tools_answer_with_a_region(shared):
    _, client = shared
    answer = client(
        "POST",
        "/api/tool",
        {"case": "scan_0", "tool": "click", "seed": "18,20,12", "plane": -1, "low": 200, "high": 400},
    )
    x0, x1, _, _, z0, z1 = map(int, answer.headers["x-box"].split(","))
    assert x0 < 18 < x1
    assert z1 - z0 == pytest.approx(15, abs=2)
    assert 100 < client.json("POST", "/api/tool", {"case": "scan_0", "tool": "otsu"})["threshold"] < 300


def test_learning_writes_drafts_and_reviews_are_kept(tmp_path):
    with bench(tmp_path) as (project, client):
        assert "example" in one_sentence(client("POST", "/api/learn", body="{}"), 400)
        mask = (nib.load(tmp_path / "scans/scan_0.nii.gz").get_fdata() > 200).astype(np.uint8)
        client("PUT", "/api/mask", {"case": "scan_0", "version": 0, "box": WHOLE}, pack(mask))
        assert "quality" in one_sentence(client("POST", "/api/learn", body='{"quality": "perfect"}'), 400)
        assert client("POST", "/api/learn", body=json.dumps({"case": "scan_1", "quality": "draft"})).status == 200
        assert client.json("GET", "/api/project")["quality"] == "draft"
        assert project.case("scan_1").status == "draft"
        body = json.dumps({"case": "scan_1", "status": "accepted", "note": "good"})
        assert client("POST", "/api/review", body=body).status == 200
        state = client.json("GET", "/api/project")
        assert {case["name"]: case["status"] for case in state["cases"]} == {"scan_0": "example", "scan_1": "accepted"}
        assert state["curve"] == [{"labels": 1, "dice": 1.0, "case": "scan_1"}]
        files = client.json("POST", "/api/export", body='["nifti"]')["files"]
        assert all(Path(file).is_file() for file in files)


def test_a_review_of_a_draft_that_was_replaced_is_refused(tmp_path):
    with bench(tmp_path) as (project, ask):
        for _ in range(2):
            project.write_draft("scan_0", np.ones(SHAPE, np.uint8), confidence=0.5)
        review = {"case": "scan_0", "status": "accepted", "version": 0, "draft": 1}
        one_sentence(ask("POST", "/api/review", body=json.dumps(review)), 409)
        assert ask("POST", "/api/review", body=json.dumps({**review, "draft": 2})).status == 200


def test_events_tell_of_changes(shared):
    _, client = shared
    connection = http.client.HTTPConnection(client.address, timeout=30)
    connection.request("GET", "/api/events", headers={"Authorization": f"Bearer {TOKEN}"})
    event = json.loads(connection.getresponse().readline().removeprefix(b"data: "))
    assert event["job"]["status"] == "idle"
    connection.close()


def test_a_taken_port_is_refused():
    listener = free_port("127.0.0.1", 0)
    with pytest.raises(InputError, match="port"):
        free_port("127.0.0.1", listener.getsockname()[1])
    listener.close()
    with pytest.raises(InputError):
        free_port("127.0.0.1", 99999)
