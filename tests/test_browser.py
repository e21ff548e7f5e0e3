"""The course as a person meets it: JupyterLab, the report and the site in a real browser, its network cut."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from chromium import PHONE, chromium, jupyterlab, kept, opened, overflow, violations
from test_report import outcome, row

from course_utils.cli import report, site
from course_utils.evidence import Ledger, claims

pytestmark = pytest.mark.slow

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
PATIENCE = 300_000  # milliseconds for the slowest cell on the slowest machine
READY = """() => { const w = window.jupyterapp?.shell.currentWidget;
    return w?.context?.isReady && w.sessionContext?.session?.kernel?.status === 'idle' }"""
CELLS = """() => { const cells = window.jupyterapp.shell.currentWidget.content.model.cells, found = [];
    for (let i = 0; i < cells.length; i++) found.push(cells.get(i).toJSON());
    return found }"""
CONTROLS = [  # the controls of notebooks 08, 06 and 01, without the minutes of measuring before them
    """from course_utils import browse, cards, dial, harvest, open_lab, ready_sae, steer
from course_utils.interventions import sample
from course_utils.widgets.attention import attention_view
from course_utils.widgets.dial import Text
lab = open_lab()
acts = harvest(lab, lab.middle_hook, 20_000, split="heldout", labels=True)
sae = ready_sae(lab)
index = cards.CardIndex(lab, sae, acts)
latent = index.search(sort="score")[0]""",
    """def write(dose, opening):
    with steer(lab, lab.middle_hook, sae.W_dec[latent], dose):
        rows = sample(lab, opening, 16, seed=2, n=2).continuations()
    return [Text(opening, lab.text_of(ids), [(0, 3)], 1.0) for ids in rows]
dial(write, [0.0, 4.0, 8.0, 16.0], start=4.0, marks=(4.0, 8.0), prompts=["The", "In the"])""",
    "browse(index, index.card, start=latent)",
    """ids, seen = lab.encode("The tiger lives in the jungle"), []
lab.run(ids, hooks=[("blocks.0.attn.hook_pattern", lambda a: seen.append(a[0]))])
attention_view(seen[0], [lab.token_strings[i] for i in ids[0].tolist()])""",
]


@pytest.fixture(scope="module")
def browser():
    with chromium() as one:
        yield one


@pytest.fixture(scope="module")
def lab_server(tmp_path_factory, browser):
    """JupyterLab on a folder with notebook 00 and one with the controls of 01, 06 and 08; and where things are kept."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copy(NOTEBOOKS[0], folder)
    cells = [nbformat.v4.new_code_cell(source) for source in CONTROLS]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "controls.ipynb")
    with jupyterlab(folder) as address:
        yield address, folder / "home"


class Notebook:
    """A notebook that is open in JupyterLab."""

    def __init__(self, page):
        self.page = page
        page.set_default_timeout(PATIENCE)
        page.wait_for_function(READY)

    def cells(self) -> list[dict]:
        return self.page.evaluate(CELLS)

    def place(self, words: str) -> int:
        return next(i for i, cell in enumerate(self.cells()) if words in "".join(cell["source"]))

    def cell(self, words: str):
        """Return the cell that says so, scrolled to."""
        place = self.place(words)
        self.page.evaluate(f"window.jupyterapp.shell.currentWidget.content.activeCellIndex = {place}")
        found = self.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Cell").nth(place)
        found.scroll_into_view_if_needed()
        return found

    def run(self, what: str) -> None:
        """Choose an entry of the Run menu, and wait for the last cell."""
        self.page.evaluate(f"window.jupyterapp.commands.execute('notebook:run-{what}')")
        self.page.wait_for_function(READY)

    def type(self, words: str, code: str):
        """Type code into a cell, run it, and return what it says."""
        cell = self.cell(words)
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.insert_text(code)
        self.page.keyboard.press("Control+Enter")
        self.page.wait_for_timeout(300)
        self.page.wait_for_function(READY)
        return cell.locator(".jp-Cell-outputArea")

    def failures(self) -> list[str]:
        return [out["evalue"] for cell in self.cells() for out in cell.get("outputs", [])
                if out["output_type"] == "error"]


def test_notebook_00_is_read_as_a_student_reads_it(browser, lab_server):
    address, home = lab_server
    with opened(browser, f"{address}/{NOTEBOOKS[0].name}?reset") as page:
        book = Notebook(page)
        page.evaluate("window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
        predicts_and_reveals(book, home)
        shows_every_figure(book)
        names_the_mistake(book)


def predicts_and_reveals(book: Notebook, home: Path) -> None:
    book.cell("levels = np.array")  # the cell that measures
    book.run("all-above")
    form = book.cell('predict("00.once"').locator(".jp-Cell-outputArea")
    form.locator(".widget-readout").click()
    book.page.keyboard.press("Control+a")
    book.page.keyboard.type("33")
    book.page.keyboard.press("Enter")
    form.get_by_role("button", name="Commit").click()
    form.get_by_text("Committed: 33 %, before the measurement.").wait_for()
    form.screenshot(path=kept("prediction_committed"))
    assert json.loads((home / "progress.json").read_text())["predictions"]["00.once"]["guess"] == 33
    book.run("all-cells")
    code = [cell for cell in book.cells() if cell["cell_type"] == "code" and cell["source"]]
    assert book.failures() == [] and all(cell["execution_count"] for cell in code)
    revealed = book.cell("levels = np.array").locator(".jp-Cell-outputArea")
    # Drawn a moment after the kernel is done; JupyterLab may skip drawing it again, so what follows asks for the DOM.
    revealed.get_by_text("You predicted").wait_for()
    assert re.search(r"You predicted 33 %\. Measured: [\d.]+ %\. You were off by", revealed.text_content())
    revealed.screenshot(path=kept("prediction_revealed"))


def shows_every_figure(book: Notebook) -> None:
    pictures = [out for cell in book.cells() for out in cell.get("outputs", []) if "image/png" in out.get("data", {})]
    images = book.page.locator(".jp-OutputArea-output img")
    assert images.count() >= len(pictures) >= 5
    # JupyterLab keeps a picture's words in the notebook, where the site and the report find them, and shows none.
    assert min(len(out["metadata"]["image/png"]["alt"]) for out in pictures) > 25
    for image in images.all():
        image.scroll_into_view_if_needed()
        assert image.is_visible() and image.evaluate("i => i.complete && i.naturalWidth > 100")
    book.cell("counts = [n for n in").screenshot(path=kept("notebook_00_figure"))


def names_the_mistake(book: Notebook) -> None:
    stub, head = '@exercise("00.1")', '@exercise("00.1")\ndef share_lit(activity, threshold):\n    return '
    said = book.type(stub, head + "(activity > threshold).any(0).float().mean()")
    said.get_by_text("not right yet").first.wait_for()
    for words in ("00.1 · how much is lit: not right yet", "Looks like: at least once.", "The smallest case"):
        assert words in said.text_content()
    book.cell(stub).screenshot(path=kept("exercise_wrong"))
    said = book.type(stub, head + "(activity > threshold).float().mean()")
    said.get_by_text("✓").first.wait_for()
    assert "✓" in said.text_content() and "not right yet" not in said.text_content()
    book.cell(stub).screenshot(path=kept("exercise_right"))


def test_the_controls_of_the_other_notebooks_move(browser, lab_server):
    with opened(browser, f"{lab_server[0]}/controls.ipynb?reset") as page:
        book = Notebook(page)
        book.run("all-cells")
        assert book.failures() == []
        turns_the_dial(book)
        turns_to_other_cards(book)
        draws_attention(book)


def turns_the_dial(book: Notebook) -> None:
    out = book.cell("dial(write").locator(".jp-Cell-outputArea")
    line, texts = out.get_by_role("status"), out.locator(".uth-dial").last
    out.get_by_text("dose 4 · ").wait_for()
    before = texts.text_content()
    assert "dose 4 · " in line.text_content() and "inside the useful window" in line.text_content()
    out.get_by_role("slider").first.focus()
    book.page.keyboard.press("End")
    out.get_by_text("dose 16 · ").filter(has_not_text="writing").wait_for()
    assert "above the useful window" in line.text_content() and texts.text_content() != before
    out.screenshot(path=kept("dial"))


def turns_to_other_cards(book: Notebook) -> None:
    out = book.cell("browse(index").locator(".jp-Cell-outputArea")
    head = out.locator(".uth-card h3")
    seen = [head.text_content()]
    out.get_by_role("button", name="next ▶").click()
    out.locator(".uth-card h3").filter(has_not_text=re.compile(f"^{seen[0]}$")).wait_for()
    seen.append(head.text_content())
    out.get_by_placeholder("a word or a concept").fill("country")
    book.page.keyboard.press("Enter")
    out.get_by_text(re.compile(r"^[\d,]+ latents$")).wait_for()
    seen.append(head.text_content())
    assert all(re.fullmatch(r"Latent \d+", text) for text in seen) and seen[0] != seen[1]
    out.screenshot(path=kept("card_browser"))


def draws_attention(book: Notebook) -> None:
    out = book.cell("attention_view(").locator(".jp-Cell-outputArea")
    view = out.get_by_role("figure")
    view.locator("canvas").first.wait_for()
    drawn = "c => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size"
    assert max(canvas.evaluate(drawn) for canvas in view.locator("canvas").all()) > 3  # not one blank colour
    out.screenshot(path=kept("attention"))


# --- pages ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def build(tmp_path_factory) -> Path:
    """The folder of a run: the executed notebooks, a row for every claim, and the pages made from them."""
    folder, draw = tmp_path_factory.mktemp("build"), random.Random(0)
    shutil.copytree(NOTEBOOKS[0].parent, folder / "notebooks")
    for name in claims():
        value = draw.uniform(-2, 2000)
        Ledger(folder / "ledger.json").record(row(
            id=name, value=value, low=value - 1, high=value + 1, verdict=draw.choice([*report.TONES, "not testable"]),
            statistic="share of latents whose best concept is the one named beforehand, on held-out text"))
    outcomes = [outcome(path.stem, title=path.stem[3:].replace("_", " ")) for path in NOTEBOOKS]
    about = {"model": "organism", "versions": "Under the Hood, " + ", ".join(f"library {i}.0.0" for i in range(12))}
    (folder / "run.json").write_text(json.dumps(about | {"notebooks": outcomes}))
    site.make(folder)
    return folder


LOOKS = {"wide": {}, "dark": {"color_scheme": "dark"}, "phone": {"viewport": PHONE}}
by_look = pytest.mark.parametrize("look", LOOKS)


@by_look
def test_the_report_is_for_everybody(browser, build, look):
    with opened(browser, (build / "report.html").as_uri(), **LOOKS[look]) as page:
        assert violations(page) == [] and overflow(page) <= 0
        page.screenshot(path=kept(f"report_{look}"))
        assert all(page.eval_on_selector_all("img", "all => all.map(i => i.naturalWidth > 100 && i.alt.length > 25)"))


@by_look
def test_the_ledger_is_sorted_from_the_keyboard(browser, build, look):
    values = "rows => rows.map(r => parseFloat(r.cells[3].dataset.value))"
    with opened(browser, (build / "report.html").as_uri(), **LOOKS[look]) as page:
        page.get_by_role("button", name="Value", exact=True).focus()
        page.keyboard.press("Enter")
        up = page.eval_on_selector_all("#rows tbody tr", values)
        page.keyboard.press("Enter")
        down = page.eval_on_selector_all("#rows tbody tr", values)
        assert up == sorted(up) == down[::-1] and len(up) == len(claims())
        page.get_by_role("button", name="Claim").click()
        assert page.locator("#rows tbody th").first.text_content().startswith("C01")


def test_the_report_needs_no_script_and_can_be_printed(browser, build):
    with opened(browser, (build / "report.html").as_uri(), java_script_enabled=False) as page:
        assert page.get_by_role("button").count() == 0 and page.locator("#rows tbody tr").count() == len(claims())
    with opened(browser, (build / "report.html").as_uri(), viewport={"width": 1050, "height": 740}) as page:
        page.emulate_media(media="print")
        assert overflow(page) <= 0
        page.screenshot(path=kept("report_print"))
        assert page.pdf(prefer_css_page_size=True).count(b"/Type /Page\n") > 3


# axe takes ten seconds for the thousands of coloured words of a page's code, so eight cells stand for all. circuitsvis
# draws heads on canvases without a name: the view around them has one, and a plain picture with words beside it.
ALIKE = """document.querySelectorAll('.highlight').forEach((code, i) => i < 8 || code.remove());
    document.querySelectorAll('[id^=attention-]').forEach(view => view.replaceChildren())"""


@pytest.mark.parametrize("name", [source.file for source in site.sources(NOTEBOOKS[0].parents[1])])
def test_the_site_is_for_everybody(browser, build, name):
    page_of = (build / "site" / name).as_uri()
    for look, settings in LOOKS.items():
        with opened(browser, page_of, **settings) as page:
            assert overflow(page) <= 0
            page.screenshot(path=kept(f"site_{name.removesuffix('.html')}_{look}"))
            page.evaluate(ALIKE)
            assert look == "phone" or (look, violations(page)) == (look, [])
