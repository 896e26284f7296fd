"""What a person sees after the demo: `alexnet ui` in a headless Chromium, with pictures to look at.

They are kept in the folder that env ALEXNET_SCREENSHOTS names.
"""

import asyncio
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import time
import urllib.request
from pathlib import Path

import crash
import psutil
import pytest
from browser import Browser
from conftest import run_alexnet

pytestmark = [pytest.mark.slow, pytest.mark.browser]
STAGES = ("ingest", "stats", "train", "evaluate", "report")


@pytest.fixture(scope="module")
def chromium() -> str:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not path:
        pytest.skip("no chromium here: apt-get install chromium")
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = Path(os.environ.get("ALEXNET_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def ui(demo_root, tmp_path_factory):
    """`alexnet ui` on a free port, and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("ui") / "log"
    server = crash.start("ui", "--root", demo_root, "--port", port, log=log)
    address = f"http://127.0.0.1:{port}"
    try:
        crash.wait_until(lambda: answers(address), "the MLflow UI", 120, server)
        assert f"MLflow UI: {address}" in log.read_text()
        yield server, address, log.read_text().partition("MLflow UI: ")[2].split()[0]
    finally:
        server.terminate()
        server.wait(30)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health") as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def runs(demo_root) -> dict[str, str]:
    """The id of each stage's run, and of their parent's."""
    status = json.loads(run_alexnet("status", "--json", "--root", demo_root).stdout)
    found = {row["stage"]: row["mlflow_run_id"] for row in status}
    with sqlite3.connect(demo_root / "mlflow.db") as database:
        query = "select value from tags where key = 'mlflow.parentRunId' and run_uuid = ?"
        ((found["parent"],),) = database.execute(query, (found["report"],)).fetchall()
        query = "select experiment_id from runs where run_uuid = ?"
        ((found["experiment"],),) = database.execute(query, (found["parent"],)).fetchall()
    return found


def test_runs_curves_report_and_model_are_seen_in_a_browser(ui, runs, demo_root, chromium, pictures):
    _, address, link = ui
    (evaluated,) = demo_root.glob("evaluate/*/evaluate.json")
    error = str(json.loads(evaluated.read_text())["top1_error_ten_crop"])
    experiment = f"{address}/#/experiments/{runs['experiment']}"

    async def look() -> None:
        async with Browser(chromium) as browser:

            async def page(name: str, url: str, *words: str) -> None:
                await browser.open(url, *words)
                await asyncio.sleep(1)  # lines of a chart are drawn after its words
                await browser.picture(pictures / f"{name}.png")

            await browser.open(link, "demo-", "top1_error_ten_crop", "recipe", error[:6])  # without choosing columns
            await browser.click("[data-component-id='mlflow.assistant.chat_panel.close']")
            await browser.click("[data-component-id*='runnamecellrenderer']")  # the parent shows its stages
            await browser.see("demo-", *STAGES)
            await browser.picture(pictures / "runs.png")
            await page("parent", f"{experiment}/runs/{runs['parent']}", "made by", *STAGES)
            await page("train", f"{experiment}/runs/{runs['train']}", "val top-1 error", "train.epochs")
            await page("evaluate", f"{experiment}/runs/{runs['evaluate']}", "newest", "top5_error", "Evaluation")
            await page("curves", f"{experiment}/runs/{runs['train']}/model-metrics", "epoch_loss", "images_per_s")
            lines = await browser.evaluate("document.querySelectorAll('.scatterlayer .js-line').length")
            assert lines >= 2, "no curve is drawn"
            bars = await browser.evaluate("document.querySelectorAll('.barlayer .trace').length")
            assert bars == 0, "a single value is drawn as a chart of one bar"
            await page("report", f"{experiment}/runs/{runs['report']}/artifacts/report.html", "report.html", "figures")
            await page("model", f"{address}/#/models/alexnet-demo", "Version 2", "newest", "best")
            await page("report_alone", (report_of(demo_root)).as_uri(), "AlexNet, recipe demo", "First layer")

    asyncio.run(look())


def report_of(root: Path) -> Path:
    return next(root.glob("report/*/report.html"))


def test_the_ui_listens_on_loopback_only_and_ends_with_its_command(ui):
    server, address, _ = ui
    family = [psutil.Process(server.pid), *crash.family(server)]
    listening = [c for process in family for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
    assert {connection.laddr.ip for connection in listening} == {"127.0.0.1"}
    server.send_signal(subprocess.signal.SIGTERM)
    server.wait(30)
    ends = time.monotonic() + 10
    while time.monotonic() < ends and answers(address):
        time.sleep(0.1)
    assert not answers(address)
