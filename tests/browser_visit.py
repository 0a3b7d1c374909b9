"""A page in a browser, and the files of the explorer that it reads."""

import json
from contextlib import contextmanager

# Texts are data, never markup; and right to left, very long, without a blank, and an emoji.
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)> & “quotes” \"'`${1}",
    "صورة لرقم أحمر على العشب",
    "a photo of " + "a very " * 60 + "long text",
    "unbroken" * 40,
    "a photo of a 🦆 and a 👩‍🚀",
]


class Visit:
    """One page in the browser, and what went wrong in it."""

    def __init__(self, chromium, folder, address="", width=1400, **options):
        self.folder, self.problems = folder, []
        self.context = chromium.new_context(viewport={"width": width, "height": 900}, **options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(10_000)
        self.page.on("console", lambda message: self.problems.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("dialog", lambda dialog: self.problems.append(f"dialog: {dialog.message}"))
        self.page.on("request", self.check_request)
        self.page.on("requestfailed", lambda request: self.problems.append(f"failed: {request.url}"))
        self.open(address)

    def check_request(self, request):
        inside = self.folder.absolute().as_uri() + "/"
        if not request.url.startswith((inside, "data:")):
            self.problems.append(f"outside of the folder: {request.url}")

    def open(self, address):
        """Open an address of the page, "#…"."""
        self.page.goto((self.folder / "index.html").absolute().as_uri() + address)
        self.ready()

    def ready(self):
        """Wait until the screen and all that it loads is there."""
        self.page.wait_for_selector("main h1, .problem")
        self.page.wait_for_function("!document.querySelector('.wait')")
        self.page.wait_for_function(
            "![...document.querySelectorAll('.chart')].some((c) => c.textContent === 'Drawing …')"
        )

    def hash(self):
        return self.page.evaluate("location.hash")

    def focused(self):
        """What is in focus, as a screen reader names it."""
        return self.page.evaluate(
            "document.activeElement.getAttribute('aria-label') || document.activeElement.textContent.trim()"
        )


@contextmanager
def visits(kind, chromium, folder):
    """A function that opens pages, of another folder if it is told; at the end nothing may have gone wrong in any.

    kind: Visit, or a class of it
    """
    opened = []

    def open_page(address="", *, folder=folder, **options):
        opened.append(kind(chromium, folder, address, **options))
        return opened[-1]

    yield open_page
    problems = [problem for visit in opened for problem in visit.problems]
    for visit in opened:
        visit.context.close()
    assert not problems


def part_of(path):
    """[key, value] of a part of the explorer."""
    call = path.read_text(encoding="utf-8").strip()
    return json.loads("[" + call.removeprefix("part(").removesuffix(");") + "]")


def read_part(path):
    """The value of a part of the explorer."""
    return part_of(path)[1]


def change_part(path, change):
    """Write a part again, its value changed by a function."""
    key, value = part_of(path)
    path.write_text(f"part({json.dumps(key)},{json.dumps(change(value))});", encoding="utf-8")
