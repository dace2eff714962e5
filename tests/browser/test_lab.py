"""A real JupyterLab in a real browser: each chapter as a reader meets it. Oracle: the notebook model and the pixels."""

import functools
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import Page, TimeoutError

from tests.browser.conftest import ROOT, WRITTEN, move_frames

pytestmark = pytest.mark.browser
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
# COURSE_SCREENSHOT names a PNG that receives chapter 00 with its slider (the picture in README.md)
SCREENSHOT = os.environ.get("COURSE_SCREENSHOT")

PICTURE = """async node => {
  const img = [...node.querySelectorAll("img")].filter(i => i.src.startsWith("blob:") && i.offsetParent).pop();
  if (!img) return null;
  const bytes = new Uint8Array(await (await fetch(img.src)).arrayBuffer());
  let sum = 0;
  for (const b of bytes) sum = (sum * 31 + b) >>> 0;
  return `${bytes.length}:${sum}`;
}"""
IDLE = "window.jupyterapp.shell.currentWidget.sessionContext?.session?.kernel?.status === 'idle'"
CELLS = """() => {
  const notebook = window.jupyterapp.shell.currentWidget.content;
  return notebook.model.sharedModel.cells.map((cell, index) => {
    const json = cell.toJSON();
    const outputs = json.outputs || [];
    return {
      index, kind: json.cell_type, count: json.execution_count, source: [].concat(json.source).join(""),
      errors: outputs.filter(o => o.output_type === "error").map(o => `${o.ename}: ${o.evalue}`),
      stderr: outputs.filter(o => o.name === "stderr").map(o => [].concat(o.text).join("")),
      kinds: outputs.flatMap(o => Object.keys(o.data || {})),
    };
  });
}"""
TO_CELL = """index => {
  const notebook = window.jupyterapp.shell.currentWidget.content;
  notebook.activeCellIndex = index;
  return notebook.scrollToItem(index, "center");
}"""

LARGE_MESSAGE = """() => {
  const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  const answered = kernel.requestExecute({code: `len("${"a".repeat(20e6)}")`}).done.then(reply => reply.content.status);
  const tired = new Promise(resolve => setTimeout(() => resolve("no answer in 30 s"), 30e3));
  return Promise.race([answered, tired]).catch(error => String(error));
}"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab on a copy of the chapters, as `make lab` starts it; gives (address, token)."""
    home = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", home / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    environment = os.environ | {
        "COURSE_PICTURE": "default",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
    }
    jupyter = [sys.executable, "-m", "jupyter"]
    notebooks = [str(p) for p in sorted(home.glob("notebooks/*/*.ipynb"))]
    subprocess.run([*jupyter, "trust", *notebooks], env=environment, check=True, capture_output=True)
    command = [*jupyter, "lab", "--no-browser", "--ip", "127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"]
    command += [
        f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={home}",
        "--LabApp.expose_app_in_browser=True",
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    log = (home / "server.log").open("wb")
    server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait_for(f"http://127.0.0.1:{port}/api?token={token}", server, home / "server.log")
        yield f"http://127.0.0.1:{port}", token
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        log.close()


def _wait_for(url: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(240):
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.25)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text(encoding='utf-8', errors='replace')[-2000:]}")


@pytest.mark.parametrize("chapter", WRITTEN, ids=lambda c: c.number)
def test_chapter_in_jupyterlab(chapter, lab, open_page):
    """Run All ends without an error; every live control, pointer and frame slider changes its picture; all is local."""
    address, token = lab
    watched = open_page(1280, 900)
    page = watched.page
    started = time.perf_counter()
    page.goto(f"{address}/lab/workspaces/c{chapter.number}/tree/notebooks/{chapter.path.as_posix()}?token={token}")
    _wait(page, "window.jupyterapp?.shell?.currentWidget?.content?.model?.cells?.length > 3")
    _wait(page, IDLE)
    opened = time.perf_counter()
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    _wait(page, IDLE)
    ran = time.perf_counter()
    cells = page.evaluate(CELLS)
    code = [c for c in cells if c["kind"] == "code" and c["source"].strip()]
    assert [(c["index"], e) for c in cells for e in c["errors"]] == []
    assert [(c["index"], e) for c in cells for e in c["stderr"]] == []
    assert [c["count"] for c in code] == list(range(1, len(code) + 1)), "not every cell ran, in order"
    assert page.locator(".jp-Dialog, .jp-toastContainer .Toastify__toast").count() == 0, (
        "a popup is in the reader's way"
    )
    live, pointers, frames = _try_interactions(page, cells)
    print(
        f"chapter {chapter.number}: opened in {opened - started:.1f} s, {len(code)} cells ran in {ran - opened:.1f} s, "
        f"moved {live} live controls, {pointers} pointers, {frames} frame sliders in {time.perf_counter() - ran:.1f} s"
    )
    assert live + pointers >= 1, "a chapter has at least one live interaction"
    assert frames >= 1, "a chapter has at least one interaction that needs no kernel"
    if SCREENSHOT and chapter.number == "00":
        _picture_for_the_readme(page, cells)
    page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
    watched.assert_calm()


def test_a_large_photograph_reaches_the_kernel(lab, open_page):
    """A message of 20 MB, as a visitor's photograph makes one, is answered; tornado's own limit is 10 MiB."""
    address, token = lab
    page = open_page(1280, 900).page
    page.goto(f"{address}/lab/workspaces/large/tree/notebooks/{WRITTEN[0].path.as_posix()}?token={token}")
    _wait(page, "window.jupyterapp?.shell?.currentWidget?.content?.model?.cells?.length > 3")
    _wait(page, IDLE)
    assert page.evaluate(LARGE_MESSAGE) == "ok"
    page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")


def _wait(page: Page, condition: str) -> None:
    try:
        page.wait_for_function(condition, timeout=60_000)
    except TimeoutError:
        seen = page.evaluate("document.body.innerText")[:1500]
        pytest.fail(f"JupyterLab did not get to: {condition}\nit shows:\n{seen}")


def _try_interactions(page: Page, cells: list[dict]) -> tuple[int, int, int]:
    live = pointers = frames = 0
    for cell in cells:
        html = "text/html" in cell["kinds"]
        if WIDGET_VIEW not in cell["kinds"] and not html:
            continue
        page.evaluate(TO_CELL, cell["index"])
        node = page.locator(f".jp-Notebook .jp-Cell[data-windowed-list-index='{cell['index']}']").first
        node.wait_for(timeout=20_000)
        if WIDGET_VIEW in cell["kinds"]:
            node.locator(".jupyter-widgets, .course-pointer").first.wait_for(timeout=20_000)
            pointers += _move_pointers(page, node, cell)
            live += _move_controls(page, node, cell)
        frames += move_frames(page, node, f"cell {cell['index']}")
    return live, pointers, frames


def _changes(page: Page, node, before, act, where: str) -> None:
    """Repeat `act` until another picture is shown; a step may be too small to be seen, twelve may not."""
    for attempt in range(12):
        act(attempt)
        for _ in range(10):
            page.wait_for_timeout(60)
            if node.evaluate(PICTURE) != before:
                return
    pytest.fail(f"{where}: moved, but the picture stayed the same")


def _move_controls(page: Page, node, cell: dict) -> int:
    """Every slider, button row, drop-down and check box beside a live picture."""
    if node.locator(".widget-image, img.jupyter-widgets").count() == 0:
        return 0
    moved = 0
    for k in range(node.locator(".widget-slider .noUi-handle, .jupyter-widget-slider .noUi-handle").count()):
        handle = node.locator(".noUi-handle").nth(k)
        last = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")
        key = "ArrowLeft" if last else "ArrowRight"
        handle.focus()
        before = node.evaluate(PICTURE)
        assert before is not None, f"cell {cell['index']}: a slider without a picture"
        _changes(page, node, before, lambda _, key=key: page.keyboard.press(key), f"cell {cell['index']}, slider {k}")
        moved += 1
    for row in node.locator(".widget-toggle-buttons").all():
        others = row.locator("button:not(.mod-active)")
        act = functools.partial(_click_one_of, others)
        _changes(page, node, node.evaluate(PICTURE), act, f"cell {cell['index']}, buttons")
        moved += 1
    for box in node.locator(".widget-checkbox input[type=checkbox]").all():
        _changes(page, node, node.evaluate(PICTURE), lambda _, box=box: box.click(), f"cell {cell['index']}, check box")
        moved += 1
    for menu in node.locator(".widget-dropdown select").all():
        act = functools.partial(_choose_one_of, menu)
        _changes(page, node, node.evaluate(PICTURE), act, f"cell {cell['index']}, drop-down")
        moved += 1
    return moved


def _click_one_of(buttons, attempt: int) -> None:
    buttons.nth(attempt % buttons.count()).click()


def _choose_one_of(menu, attempt: int) -> None:
    menu.select_option(index=(attempt + 1) % menu.locator("option").count())


def _move_pointers(page: Page, node, cell: dict) -> int:
    surfaces = node.locator(".course-pointer [role=application]")
    for k in range(surfaces.count()):
        surface = surfaces.nth(k)
        surface.scroll_into_view_if_needed()
        card = node.locator(".course-pointer").nth(k)
        page.wait_for_timeout(100)
        box, before = surface.bounding_box(), card.evaluate(PICTURE)
        assert before is not None, f"cell {cell['index']}: a pointer without a picture"
        _changes(page, card, before, functools.partial(_hover, page, box), f"cell {cell['index']}, pointer {k}")
    return surfaces.count()


def _hover(page: Page, box: dict, attempt: int) -> None:
    page.mouse.move(
        box["x"] + (0.27 + 0.04 * attempt) * box["width"], box["y"] + (0.31 + 0.05 * attempt) * box["height"]
    )


def _picture_for_the_readme(page: Page, cells: list[dict]) -> None:
    index = next(c["index"] for c in cells if "show.live(" in c["source"])
    page.evaluate("window.jupyterapp.commands.execute('application:toggle-left-area')")
    page.evaluate(TO_CELL, index)
    node = page.locator(f".jp-Notebook .jp-Cell[data-windowed-list-index='{index}'] .jp-OutputArea").first
    node.evaluate("e => e.scrollIntoView({block: 'center'})")
    page.wait_for_timeout(800)
    page.screenshot(path=SCREENSHOT)
