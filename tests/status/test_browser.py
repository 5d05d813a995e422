"""The page in a browser: Chromium, driven by selenium, where Debian's packages are installed."""

import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from tests.certificates import Identity
from tests.conftest import PATIENCE, Children, Service

CHROMIUM, DRIVER = which("chromium"), which("chromedriver")
if CHROMIUM is None or DRIVER is None:
    pytest.skip("no browser: install chromium and chromium-driver", allow_module_level=True)

selenium = pytest.importorskip("selenium", reason="no selenium: pip install -e '.[dev]'")

from selenium import webdriver  # noqa: E402
from selenium.webdriver.chrome.service import Service as Driver  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

EVIL = "<img src=x onerror=alert(1)><b>"

#: An attacker's name, which leads to this machine.
REBOUND = "evil.example"


class Browser:
    """A browser that shows the page."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def text(self, name: str) -> str:
        """Give what a section says."""
        return self.driver.find_element(By.ID, name).text

    def until(self, come: Callable[[], object]) -> None:
        # The machine may have much else to do.
        WebDriverWait(self.driver, 3 * PATIENCE, 0.1).until(lambda _: come())

    @property
    def faults(self) -> list[str]:
        """Give what the console says of faults since the last look."""
        found = self.driver.get_log("browser")
        return [each["message"] for each in found if each["level"] == "SEVERE"]

    @property
    def asked(self) -> set[str]:
        """Give the addresses that were asked since the last look."""
        events = [json.loads(each["message"])["message"] for each in
                  self.driver.get_log("performance")]  # fmt: skip
        return {
            each["params"]["request"]["url"]
            for each in events
            if each["method"] == "Network.requestWillBeSent"
        }


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    options = webdriver.ChromeOptions()
    assert CHROMIUM is not None
    options.binary_location = CHROMIUM
    for each in (
        *("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "no-first-run"),
        *("disable-background-networking", "disable-component-update", "disable-sync"),
        f"host-resolver-rules=MAP {REBOUND} 127.0.0.1",
    ):
        options.add_argument(f"--{each}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Driver(DRIVER))
    yield Browser(driver)
    driver.quit()


def started(children: Children, port: int, *options: str) -> tuple[Service, int]:
    service = children.serve("--status", f"tcp:{port}:interface=127.0.0.1", *options)
    found = service.until(rb"status page listening on tcp:127\.0\.0\.1:(\d+)")
    return service, int(found[1])


def test_the_page_in_a_browser(
    browser: Browser,
    children: Children,
    opened: ExitStack,
    tmp_path: Path,
    server: Identity,
    authority: Identity,
) -> None:
    evil = Identity(tmp_path, EVIL, authority, hosts=("evil.example",))
    service, port = started(
        *(children, 0),
        *("--listen", "ssl:0:interface=127.0.0.1:privateKey="
          f"{server.privateKey}:certKey={server.certKey}:caCerts={authority.certKey}"),
        *("--host", "127.0.0.1"),
    )  # fmt: skip
    tls = int(service.until(rb"ack listening on ssl:127\.0\.0\.1:(\d+)")[1])
    context = ssl.create_default_context(cafile=str(authority.certKey))
    context.load_cert_chain(evil.certKey, evil.privateKey)
    context.check_hostname = False
    driver = browser.driver

    # It loads, and brings itself up to date.
    driver.get(f"http://127.0.0.1:{port}/")
    browser.until(lambda: browser.text("connection") == "Up to date, each second.")
    assert "live, ready" in browser.text("health")
    peer = opened.enter_context(closing(service.connected()))
    peer.sendall(b"x\n" * 1234)
    browser.until(lambda: "1,234 so far" in browser.text("figures"))

    # Whatever a peer is called is text.
    plain = opened.enter_context(closing(service.connected()))
    plain.close()
    made = Service(service.process)
    made.address = ("127.0.0.1", tls)
    spoken = opened.enter_context(context.wrap_socket(made.connected(), server_hostname="x"))
    spoken.sendall(b"a\nunfinished")
    browser.until(lambda: f"CN={EVIL}" in browser.text("heaviest").replace("\\", ""))
    assert driver.find_elements(By.CSS_SELECTOR, "img, table b") == []
    browser.until(lambda: "1,235 so far" in browser.text("figures"))

    # It asks nobody else, and nothing is wrong.
    assert {each.partition("//")[2].partition("/")[0] for each in browser.asked} <= {
        f"127.0.0.1:{port}",
        "",
    }
    assert browser.faults == []

    # The keyboard reaches what scrolls; on a narrow screen only tables scroll sideways.
    size = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    width, room = driver.execute_script(
        "return [document.documentElement.scrollWidth, window.innerWidth]"
    )
    assert width <= room <= 360
    driver.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    assert driver.switch_to.active_element.get_attribute("id") == "listeners"
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    # It says so when the service goes, and goes on when that is back.
    service.process.kill()
    browser.until(lambda: "No connection to the service" in browser.text("connection"))
    assert "1,235 so far" in browser.text("figures")
    assert driver.find_element(By.TAG_NAME, "body").get_attribute("class") == "stale"
    started(children, port, "--line-limit", "77")
    browser.until(lambda: browser.text("connection") == "Up to date, each second.")
    browser.until(lambda: "77 bytes" in browser.text("options"))
    assert "0 so far" in browser.text("figures")
    assert browser.faults  # of the connection that was lost

    # Without JavaScript there are tables as well.
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    driver.get(f"http://127.0.0.1:{port}/")
    assert "when the page was loaded" in browser.text("connection")
    assert "tcp:127.0.0.1" in browser.text("listeners")
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})

    # Under an attacker's name there is nothing.
    driver.get(f"http://{REBOUND}:{port}/status.json")
    shown: Any = driver.find_element(By.TAG_NAME, "body").text
    assert shown.startswith("421 Misdirected Request") and "version" not in shown
