"""The zoo: cards that agree with recipes and published figures, downloads that resume and verify, own runs."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from simsiam import published
from simsiam.config import IMAGENET_MEAN, IMAGENET_STD, as_dict
from simsiam.errors import UserError
from simsiam.model import SimSiam
from simsiam.recipes import pretrain
from simsiam.results import DataId, Result, WeightsId
from simsiam.weights import cards, zoo
from simsiam.weights.cards import Card
from simsiam.weights.load import load_backbone
from simsiam.weights.save import write_backbone
from tests.weights import foreign
from tests.weights.test_load import MODEL, RECIPE


def test_cards_name_recipes_and_rows_that_exist() -> None:
    assert len({card.name for card in cards.CARDS}) == len(cards.CARDS) == 10
    for card in cards.CARDS:
        source = published.PAGE if card.by == "MMSelfSup" else published.OFFICIAL
        assert published.figures(model=card.row, source=source), card.name
        assert card.url.startswith("https://")
        assert (card.sha8 is None) == (card.by == "official")
        assert ("NC" in card.licence) == (card.by == "official")
    recipes = {card.recipe for card in cards.CARDS} - {"resnet50_8xb32-coslr-200e"}
    assert recipes <= set(pretrain.RECIPES)


def test_list_says_the_number_of_each_cards_own_version() -> None:
    linear = {entry.name: entry.linear for entry in zoo.entries(Path("nowhere"))}
    assert linear["mmselfsup-100e-v0.5.0"] == "67.88"
    assert linear["mmselfsup-100e-v0.6.0"] == "68.20"
    assert linear["mmselfsup-100e-v0.7.0"] == "68.28"
    assert linear["official-200e-bs256"] == "69.80"


HEADINGS = {
    **{f"feature{n}": f"Feature{n}" for n in range(1, 6)},
    **{f"k{k}": f"k={k}" for k in (1, 2, 4, 8, 16, 32, 64, 96)},
    **{f"top1_k{k}": f"k={k}" for k in (10, 20, 100, 200)},
    **{
        f"{part}_ap{ap}": f"{'AP' if ap else 'mAP'}{ap}({part.title()})"
        for part in ("box", "mask")
        for ap in ("", 50, 75)
    },
    "top1": "AvgPool",
    "ap50": "AP50",
    "miou": "mIOU",
}


def cells_of(text: str, version: str, heading: str) -> list[str]:
    """The cells of a version's line under a heading, over all tables of a card."""
    found, head = [], []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == "Version":
            head = cells
        elif line.startswith(f"| {version}") and heading in head:
            found.append(cells[head.index(heading)])
    return found


@pytest.mark.parametrize("row", published.PAGE_MODELS)
def test_show_prints_every_published_number_with_its_version(row: str) -> None:
    text = zoo.show(f"mmselfsup-{row[-4:]}-v0.5.0", Path("nowhere"))
    for one in published.figures(model=row, source=published.PAGE):
        heading = "SVM" if one.protocol == "svm_voc07" else HEADINGS[one.metric]
        assert one.value in [float(c) for c in cells_of(text, one.version, heading) if c != "="], one
    assert "(this model's release)" in text
    assert "not run again after the fault was mended" in text
    assert "BGR" in text
    assert "CC BY-NC 4.0" in zoo.show("official-100e-bs512", Path("nowhere"))
    with pytest.raises(UserError, match="Did you mean mmselfsup-100e"):
        zoo.show("mmselfsup-100")


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `content`, breaking off after `cut` bytes of each answer; honours Range."""

    content, cut, ranges = b"", 0, []  # type: ignore[var-annotated]

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        type(self).ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        body = self.content[start:]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.cut])

    def log_message(self, *args: object) -> None:
        del args


@pytest.fixture
def served() -> Iterator[tuple[type[Server], str]]:
    handler = type("Handler", (Server,), {"content": bytes(11 << 20) + b"end", "cut": 1 << 30, "ranges": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield handler, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def card_at(url: str, monkeypatch: pytest.MonkeyPatch, *, sha8: str | None) -> Card:
    card = dataclasses.replace(cards.CARDS[0], name="here", url=f"{url}/weights.pth", sha8=sha8)
    monkeypatch.setattr(cards, "CARDS", (card,))
    return card


def test_get_resumes_and_verifies(
    served: tuple[type[Server], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, url = served
    handler.cut = 5 << 20
    digest = hashlib.sha256(handler.content).hexdigest()
    card_at(url, monkeypatch, sha8=digest[:8])
    path = zoo.get("here", tmp_path)
    assert path.read_bytes() == handler.content
    assert handler.ranges[:3] == [None, f"bytes={5 << 20}-", f"bytes={10 << 20}-"]
    assert json.loads((path.parent / "fetched.json").read_text())["sha256"] == digest
    asked = len(handler.ranges)
    assert zoo.get("here", tmp_path) == path
    assert len(handler.ranges) == asked  # verified in place, nothing fetched
    assert zoo.entries(tmp_path)[0].here == str(path)


def test_get_refuses_a_damaged_file(
    served: tuple[type[Server], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, url = served
    card = card_at(url, monkeypatch, sha8="00000000")
    with pytest.raises(UserError, match=r"damaged \(SHA-256 begins with .*, not 00000000"):
        zoo.get("here", tmp_path)
    assert not cards.place(card, tmp_path).exists()
    handler.content = b"<html>"
    with pytest.raises(UserError, match="only 6 bytes"):
        zoo.get("here", tmp_path)


def test_digest_of_the_first_fetch_is_held_against_later_ones(
    served: tuple[type[Server], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, url = served
    card_at(url, monkeypatch, sha8=None)
    path = zoo.get("here", tmp_path)
    path.write_bytes(handler.content[:-1] + b"!")
    assert zoo.get("here", tmp_path).read_bytes() == handler.content  # fetched anew
    handler.content = handler.content + b"changed"
    path.unlink()
    with pytest.raises(UserError, match="at the first fetch"):
        zoo.get("here", tmp_path)


def test_no_network_says_where_to_put_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = card_at("http://127.0.0.1:9", monkeypatch, sha8="00000000")
    with pytest.raises(UserError) as caught:
        zoo.get("here", tmp_path)
    assert card.url in str(caught.value)
    assert str(cards.place(card, tmp_path)) in str(caught.value)


def test_a_zoo_name_loads_once_it_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMSIAM_CACHE", str(tmp_path))
    name = "mmselfsup-100e-v0.7.0"
    with pytest.raises(UserError, match=f"not fetched yet. Run `simsiam zoo get {name}`"):
        load_backbone(name)
    path = cards.place(cards.get(name))
    path.parent.mkdir(parents=True)
    torch.save({"state_dict": foreign.resnet().state_dict(), "author": "MMSelfSup"}, path)
    loaded = load_backbone(name)
    assert loaded.source_format == "MMSelfSup 0.x released"
    assert any("Re-released" in note for note in loaded.notes)


def test_bgr_weights_take_rgb_images(tmp_path: Path) -> None:
    """What the network saw in training: an image's channels reversed, then normalised with RGB's mean and std."""
    net, card = foreign.resnet(), cards.get("mmselfsup-100e-v0.5.0")
    torch.save(net.state_dict(), tmp_path / card.file)
    torch.save(net.state_dict(), tmp_path / "renamed.pth")
    rgb = torch.rand(2, 3, 40, 40)
    mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
    for loaded in (load_backbone(tmp_path / card.file), load_backbone(tmp_path / "renamed.pth", channel_order="bgr")):
        mine, my_std = (torch.tensor(v).view(3, 1, 1) for v in (loaded.preprocess.mean, loaded.preprocess.std))
        with torch.no_grad():
            expected = net((rgb.flip(1) - mean) / std)
            torch.testing.assert_close(loaded.backbone((rgb - mine) / my_std), expected, rtol=1e-5, atol=1e-5)
        assert any("BGR" in note for note in loaded.notes)
    assert load_backbone(tmp_path / card.file, channel_order="rgb").preprocess.mean == IMAGENET_MEAN


def own_run(folder: Path) -> Path:
    torch.manual_seed(0)
    write_backbone(folder, SimSiam(MODEL).backbone, recipe=RECIPE)
    result = Result(
        protocol="pretrain",
        main_metric="knn",
        metrics={"knn": 41.25},
        recipe=as_dict(RECIPE),
        weights=WeightsId(source="run", sha256="0" * 64),
        data=DataId(name="photos|mine", sha256="1" * 64, images=919),
        seed=0,
        seconds=1.0,
        versions={},
        detail={"verdict": {"status": "healthy", "summary": "Spread 0.93."}},
    )
    result.write(folder / "result.json")
    return folder


def test_an_own_run_becomes_a_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMSIAM_CACHE", str(tmp_path / "cache"))
    folder = zoo.add(own_run(tmp_path / "birds"), licence="CC BY 4.0")
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: cc-by-4.0\n")
    assert "healthy Spread 0.93." in card
    assert r"| pretrain | knn | 41.25 | photos\|mine | 919 | 0 |" in card
    assert "1" * 64 in card
    assert load_backbone("birds").recipe == RECIPE
    assert zoo.show("birds") == card
    assert zoo.entries()[-1].by == "own run"
    assert zoo.add(tmp_path / "birds", licence="MIT") == folder  # again: replaced
    for bad in ("official-100e-bs512", "../x", ""):
        if bad:
            with pytest.raises(UserError, match="--name"):
                zoo.add(tmp_path / "birds", name=bad, licence="MIT")


def test_listing_and_cards_import_no_torch() -> None:
    code = "import sys; from simsiam.weights import cards, modelcard, zoo; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
