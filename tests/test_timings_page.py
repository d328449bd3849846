"""The page of `jobserver run --timings`, in a real browser: what it shows is held against the recording."""

from __future__ import annotations

import json
import math
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from jobserver_ffi.timeline.page import page
from jobserver_ffi.timeline.recording import Machine, Pressure, RecordedLease, RecordedProcess, Recording, Step

from .browser import Shown, started
from .command import run
from .conftest import Tool, missing

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOSTILE = '</script><img src=x onerror="pwned=1">${pwned=1}`&amp;\u202e\u2028\'\udcff'
ROW = 19  # pixels, as in lanes.js

# Three jobs of make: cc1 twice at the same time, then a link alone. The rows of the lanes: make, cc1 and ld, cc1.
MEMORY = 8 * 2**30
PROCESSES = [
    RecordedProcess(10, 1, 0, "make", "make -j4 all", 0.0, 10.0, 0.1, 5 * 2**20),
    RecordedProcess(11, 10, 0, "cc1", "/usr/lib/gcc/cc1 -quiet one.c -o build/one.s", 1.0, 4.0, 2.7, 30 * 2**20),
    RecordedProcess(12, 10, 0, "cc1", "/usr/lib/gcc/cc1 -quiet two.c -o build/two.s", 1.0, 3.0, 1.0, 20 * 2**20),
    RecordedProcess(13, 10, 0, "ld", "/usr/bin/ld -o prog one.o two.o", 5.0, 9.5, 4.0, 400 * 2**20),
]
CHANGES: list[Step] = [(0.0, 1), (1.0, 2), (3.0, 1), (9.5, 0)]
SECONDS = [second / 2 for second in range(21)]
BUILD = Recording(
    command=["make", "-j4", "all"],
    started=1764040000.123,
    seconds=10.0,
    status=0,
    cpus=2,
    source="lease",
    sampled_every=0.0,
    processes_sampled_every=0.05,
    dropped=0,
    limits=[(0.0, 4)],
    leases=[RecordedLease("make", ["make", "-j4", "all"], CHANGES, 10.0, 2, 11.5, 0, 0, 0.0)],
    processes=PROCESSES,
    machine=Machine(
        times=SECONDS,
        cpu=[0.9 if 1 <= second < 4 else 0.5 for second in SECONDS],
        memory=[2**30 + int(second) * 300_000_000 for second in SECONDS],
        memory_total=MEMORY,
        load=[1.5] * len(SECONDS),
        pressure=Pressure([0.25] * len(SECONDS), [0.0] * len(SECONDS), [0.5] * len(SECONDS)),
    ),
)
NOTHING = replace(
    BUILD,
    command=["true"],
    seconds=0.0,
    leases=[RecordedLease("true", ["true"], [(0.0, 1)], 0.0, 1, 0.0, 0, 0, 0.0)],
    processes=[],
    machine=Machine(),
)
LOST = replace(
    BUILD,
    status=-9,
    dropped=3,
    leases=[
        RecordedLease("zlib", ["make"], [(0.0, 1), (2.0, 3)], 6.0, 3, 14.0, 2, 0, 0.0),
        RecordedLease("curl", ["ninja"], [(1.0, 1)], 10.0, 1, 9.0, 0, 1, 1.0),
    ],
    processes=[*PROCESSES, RecordedProcess(20, 1, 1, "ninja", "ninja", 1.0, 10.0, 0.1, 2**20)],
)

Show = Callable[..., Shown]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started() as browser:
        yield browser


@pytest.fixture(scope="module")
def tab(browser: Browser) -> Shown:
    """One for all tests that can do with it: a new one takes longer than the test."""
    return Shown(browser.new_context(offline=True, color_scheme="light").new_page())


@pytest.fixture
def show(browser: Browser, tab: Shown, tmp_path: Path) -> Iterator[Show]:
    """Opens the page of a recording; options make a tab of its own. It may not complain, nor ask for anything."""
    opened: list[Shown] = []

    def open_page(recording: Recording = BUILD, **options: Any) -> Shown:
        path = tmp_path / "page.html"
        path.write_text(page(recording), encoding="utf-8")
        opened.append(Shown(browser.new_context(offline=True, **options).new_page()) if options else tab)
        opened[-1].open(path)
        return opened[-1].drawn()

    yield open_page
    for shown in opened:
        if shown is not tab:
            shown.page.context.close()
        assert not shown.complaints
        assert not [address for address in shown.requests if not address.startswith("data:")]


def test_it_says_what_was_built_and_how_well(show: Show) -> None:
    shown = show()
    assert shown.page.title() == "make -j4 all \N{EN DASH} build timings"
    assert shown.text("h1") == "make -j4 all"
    assert shown.text(".facts").startswith("succeeded 2025-11-2")
    tiles = shown.text(".tiles")
    assert "Duration 10.0 s 2 CPUs" in tiles
    assert "Utilisation 29 % 11.5 slot-seconds" in tiles
    assert "Most slots in use 2 of 4" in tiles
    assert "Processes 4 7.8 s of CPU" in tiles
    assert "every change" in shown.text("footer")
    assert "sampled every 50 ms" in shown.text("footer")
    assert not shown.page.locator(".warning").filter(visible=True).count()


def test_the_table_counts_the_programs(show: Show) -> None:
    rows = [row.split() for row in show().page.locator("#programs tr").all_inner_texts()]
    assert rows == [
        ["ld", "1", "4.5", "s", "4.5", "s", "4.0", "s", "51", "%"],
        ["cc1", "2", "5.0", "s", "3.0", "s", "3.7", "s", "47", "%"],
        ["make", "1", "10.0", "s", "10.0", "s", "100", "ms", "1", "%"],
    ]


@pytest.mark.parametrize(
    ("recording", "words"), [(BUILD, "succeeded"), (LOST, "SIGKILL"), (replace(BUILD, status=2), "status 2")]
)
def test_it_says_how_the_build_ended(show: Show, recording: Recording, words: str) -> None:
    assert words in show(recording).text(".status")


def test_sampled_figures_are_called_so(show: Show) -> None:
    footer = show(replace(BUILD, source="samples", sampled_every=0.02)).text("footer")
    assert "Slots: sampled every 20 ms" in footer
    assert "every change" not in footer


def test_hovering_shows_the_figures_of_that_time(show: Show) -> None:
    shown = show()
    for time in (0.5, 2.25, 7.25, 9.75):
        found = shown.hover("#slots canvas", time, 60)
        slots = [count for start, count in CHANGES if start <= time][-1]
        sample = min(index for index, at in enumerate(SECONDS) if at >= time)  # it tells of the time before it
        assert found["Slots in use"] == f"{slots} of 4"
        assert found["CPU"] == f"{BUILD.machine.cpu[sample]:.0%} of 2, load 1.5".replace("%", " %")
        assert found["Memory"] == f"{BUILD.machine.memory[sample] / 2**30:.1f} GiB of 8.0 GiB"
        assert found["Pressure"] == "cpu 25 %, memory 0 %, io 50 %"
        assert shown.text("#slots .now") == f"{slots} of 4"


@pytest.mark.parametrize(("row", "process"), [(0, 0), (1, 1), (2, 2), (1, 3)])
def test_hovering_shows_the_figures_of_that_process(show: Show, row: int, process: int) -> None:
    expected = PROCESSES[process]
    length = expected.end - expected.start
    found = show().hover("#lanes .rows", expected.start + length / 2 + 0.01, row * ROW + ROW / 2)
    assert found["title"] == f"{expected.name}pid {expected.pid}"
    assert found["command"] == expected.command
    assert found["Start"] == f"{expected.start:.3f} s"
    assert found["Duration"] == f"{length:.1f} s"
    cpu = f"{expected.cpu:.1f} s" if expected.cpu >= 1 else f"{expected.cpu * 1000:.0f} ms"
    assert found["CPU"] == f"{cpu} ({100 * expected.cpu / length:.0f} %)"
    assert found["Memory"] == (f"{expected.memory / 2**20:.{expected.memory < 100 * 2**20:d}f} MiB")
    assert found["Started by"] == str(expected.parent)


def test_between_the_bars_no_process_is_named(show: Show) -> None:
    assert show().hover("#lanes .rows", 4.5, ROW * 1.5)["title"] == "At 4.500 s"


def test_what_a_process_started_lies_below_it(show: Show) -> None:
    recording = replace(
        BUILD,
        processes=[
            PROCESSES[0],
            RecordedProcess(11, 10, 0, "gcc", "gcc one.c", 1.0, 6.0, 0.1, 0),
            RecordedProcess(12, 10, 0, "gcc", "gcc two.c", 1.5, 6.0, 0.1, 0),
            RecordedProcess(13, 11, 0, "cc1", "cc1 one.c", 2.0, 5.0, 2.0, 0),
            RecordedProcess(14, 12, 0, "cc1", "cc1 two.c", 2.0, 5.0, 2.0, 0),
        ],
    )
    shown = show(recording)
    titles = [shown.hover("#lanes .rows", 3.0, (row + 0.5) * ROW)["title"] for row in range(5)]
    assert titles == ["makepid 10", "gccpid 11", "cc1pid 13", "gccpid 12", "cc1pid 14"]


def filled(shown: Shown, time: float) -> int:
    """How many pixels of the chart of the slots have the colour of what is in use, above a time."""
    return int(
        shown.value(
            f"""() => {{
                const canvas = document.querySelector("#slots canvas");
                const probe = document.body.appendChild(document.createElement("i"));
                probe.style.color = "var(--use)";
                const [red, green, blue] = getComputedStyle(probe).color.match(/\\d+/g).map(Number);
                const x = Math.round({time} / 10 * canvas.width);
                const copy = new OffscreenCanvas(1, canvas.height).getContext("2d", {{ willReadFrequently: true }});
                copy.drawImage(canvas, -x, 0);
                const {{ data }} = copy.getImageData(0, 0, 1, canvas.height);
                let count = 0;
                for (let at = 0; at < data.length; at += 4)
                    count += data[at] === red && data[at + 1] === green && data[at + 2] === blue;
                return count;
            }}"""
        )
    )


def test_the_area_is_as_high_as_the_count(show: Show) -> None:
    shown = show()
    none, two = filled(shown, 9.8), filled(shown, 2.1)
    one = filled(shown, 4.5) + 5  # below it is the mark of the serial stretch
    assert none == 0
    assert one > 20
    assert two == pytest.approx(2 * one, abs=2)


def test_lost_tokens_are_a_warning(show: Show) -> None:
    shown = show(LOST)
    words = " ".join(shown.page.locator(".warning").filter(visible=True).all_inner_texts())
    assert "2 tokens lost by zlib" in words
    assert "1 token too many given back by curl" in words
    assert "3 changes dropped" in words


def test_each_lease_has_a_lane(show: Show) -> None:
    shown = show(LOST)
    found = shown.hover("#lanes .rows", 4.0, 20)
    assert found["title"] == "zlib"
    assert found["In use"] == "3"
    assert found["Slot-seconds"] == "14.0"
    assert found["Lost tokens"] == "2"
    assert found["Slots in use"] == "4 of 4"
    # Below its head are the three rows of its processes, then the second lease with one.
    second = shown.hover("#lanes .rows", 4.0, 52 + 3 * ROW + 8 + 20)
    assert (second["title"], second["Waited in the queue"]) == ("curl", "1.0 s")
    assert shown.hover("#lanes .rows", 4.0, 52 + 3 * ROW + 8 + 52 + ROW / 2)["Lease"] == "curl"


def test_an_empty_build(show: Show) -> None:
    shown = show(NOTHING)
    assert "0 ms" in shown.text(".tiles")
    assert "No process was recorded" in shown.text("#programs")
    assert not shown.page.locator("#lanes").is_visible()
    assert not shown.page.locator("#cpu").is_visible()
    shown.page.locator("#zoom-in").click()
    shown.page.mouse.move(*shown.place("#slots canvas", 0.0, 50))
    assert shown.figures()["Slots in use"]


def test_a_build_of_which_nothing_is_known(show: Show) -> None:
    shown = show(replace(NOTHING, limits=[], leases=[], cpus=1, seconds=2.0))
    assert "Utilisation" not in shown.text(".tiles")
    assert shown.hover("#slots canvas", 1.0, 50)["Slots in use"] == "0"


def test_what_a_recording_says_is_data(show: Show) -> None:
    hostile = replace(
        BUILD,
        command=["make", HOSTILE],
        leases=[
            RecordedLease(HOSTILE, [HOSTILE], CHANGES, 10.0, 2, 11.5, 1, 1, 0.0),
            RecordedLease("__proto__", ["constructor"], [], 0.0, 0, 0.0, 0, 0, 0.0),
        ],
        processes=[replace(process, name=HOSTILE, command=HOSTILE) for process in PROCESSES],
    )
    shown = show(hostile)
    readable = HOSTILE.replace("\udcff", "?")
    assert shown.page.locator("h1").text_content() == shlex.join(["make", readable])
    assert shown.page.locator("#programs th").text_content() == readable
    assert shown.page.locator("#programs [data-program]").get_attribute("data-program") == readable
    found = shown.hover("#lanes .rows", 2.0, 52 + ROW / 2)
    assert found["command"] == found["title"].removesuffix("pid 10") == readable
    assert not shown.page.locator("img").count()
    assert shown.value("() => typeof pwned") == "undefined"


def test_its_policy_forbids_other_scripts(show: Show) -> None:
    shown = show()
    shown.value(
        "() => { const added = document.createElement('script');"
        " added.textContent = 'pwned = 1'; document.body.append(added); }"
    )
    assert shown.value("() => typeof pwned") == "undefined"
    assert "Content Security Policy" in shown.complaints.pop()


def test_a_browser_that_cannot_draw_it_says_so_and_shows_the_rest(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(page(BUILD), encoding="utf-8")
    context = browser.new_context(offline=True)
    tab = context.new_page()
    tab.add_init_script("delete window.DecompressionStream")
    shown = Shown(tab)
    shown.open(path)
    tab.wait_for_selector("#failure:not([hidden])")
    assert "cannot be drawn" in shown.text("#failure")
    assert "cc1" in shown.text("#programs")
    context.close()


def test_the_wheel_zooms_where_the_pointer_is(show: Show) -> None:
    shown = show()
    shown.page.mouse.move(*shown.place("#slots canvas", 8.0, 60))
    shown.page.keyboard.down("Control")
    shown.page.mouse.wheel(0, -300)
    shown.page.keyboard.up("Control")
    first, last = shown.until_range("to - from < 9")
    assert (8 - first) / (last - first) == pytest.approx(0.8, abs=0.02)


def test_the_wheel_alone_scrolls_until_the_timeline_has_the_focus(show: Show) -> None:
    shown = show()
    shown.page.locator("#zoom-in").click()
    shown.until_range("to - from < 9")
    point = shown.place("#slots canvas", 5.0, 60)
    before = shown.value("() => scrollY")
    shown.page.mouse.move(*point)
    shown.page.mouse.wheel(0, 40)
    shown.page.wait_for_function(f"() => scrollY > {before}")
    assert shown.range() == (2.5, 7.5)
    shown.page.mouse.click(*shown.place("#slots canvas", 5.0, 60))
    shown.page.mouse.wheel(0, -300)
    shown.until_range("to - from < 4")


def test_dragging_pans(show: Show) -> None:
    shown = show()
    shown.page.locator("#zoom-in").click()
    assert shown.until_range("to - from < 9") == (2.5, 7.5)
    shown.page.mouse.move(*shown.place("#slots canvas", 4.0, 60))
    shown.page.mouse.down()
    shown.page.mouse.move(*shown.place("#slots canvas", 5.0, 60), steps=4)
    shown.page.mouse.up()
    first, last = shown.until_range("from < 2.4")
    assert first == pytest.approx(1.5, abs=0.1)
    assert last - first == pytest.approx(5, abs=0.02)


def test_pressing_the_overview_moves_there(show: Show) -> None:
    shown = show()
    shown.page.locator("#zoom-in").click()
    shown.until_range("to - from < 9")
    box = shown.page.locator("#overview").bounding_box()
    assert box is not None
    shown.page.mouse.click(box["x"] + box["width"] - 2, box["y"] + 5)
    assert shown.until_range("to > 9.9") == (5, 10)


def test_a_serial_stretch_is_named_and_shown(show: Show) -> None:
    shown = show()
    link = shown.page.locator(".serial button", has_text="ld")
    assert "with one slot in use: ld" in " ".join(link.inner_text().split())
    stretch = [float(link.get_attribute(name) or "nan") for name in ("data-from", "data-to")]
    assert 0 <= stretch[0] < 5 < 9.4 < stretch[1] <= 10
    link.click()
    first, last = shown.until_range("to - from < 9.9")
    assert first <= stretch[0]
    assert last >= stretch[1]


def test_a_double_click_shows_one_process(show: Show) -> None:
    shown = show()
    shown.page.mouse.dblclick(*shown.place("#lanes .rows", 2.0, 2.5 * ROW))
    first, last = shown.until_range("to - from < 9")
    assert first == pytest.approx(0.7, abs=0.05)
    assert last == pytest.approx(3.3, abs=0.05)


def test_searching_counts_and_goes_to_what_matches(show: Show) -> None:
    shown = show()
    search = shown.page.locator("#search")
    before = shown.value("() => document.querySelector('#lanes canvas').toDataURL()")
    search.fill("two")
    assert shown.text("#matches") == "2 of 4"
    changed = "(before) => document.querySelector('#lanes canvas').toDataURL() !== before"
    shown.page.wait_for_function(changed, arg=before)
    search.press("Enter")
    assert shown.figures()["command"].endswith("two.s")
    shown.until_range("to - from < 9")
    search.press("Enter")
    assert shown.figures()["title"] == "ldpid 13"
    search.fill("13")
    assert shown.text("#matches") == "1 of 4"
    search.fill("ld")  # the name of a program: that program, and not what has it in its name
    assert shown.text("#matches") == "1 of 4"
    search.fill("nothing at all")
    assert shown.text("#matches") == "0 of 4"
    search.press("Escape")
    assert shown.text("#matches") == ""


def test_a_program_of_the_table_is_searched_for(show: Show) -> None:
    shown = show()
    shown.page.locator("#programs button", has_text="cc1").click()
    assert shown.page.locator("#search").input_value() == "cc1"
    assert shown.text("#matches") == "2 of 4"


def test_it_can_be_used_by_keys_alone(show: Show) -> None:
    shown = show()
    keyboard = shown.page.keyboard
    keyboard.press("/")
    assert shown.value("() => document.activeElement.id") == "search"
    shown.page.locator("#tracks").focus()
    keyboard.press("ArrowRight")
    assert shown.figures()["title"] == "At 5.000 s"
    for _ in range(15):
        keyboard.press("ArrowLeft")
    found = shown.figures()
    assert (found["title"], found["Slots in use"]) == ("At 2.000 s", "2 of 4")
    titles = []
    for _ in range(4):
        keyboard.press("ArrowDown")
        titles.append(shown.figures()["title"])
    assert titles == ["makepid 10", "cc1pid 11", "cc1pid 12", "makepid 10"]
    keyboard.press("ArrowUp")
    spoken = shown.page.locator("#spoken").text_content() or ""
    assert "cc1, process 12, Start 1.000 s, Duration 2.0 s, CPU 1.0 s (50 %)" in spoken
    assert "Slots in use 2 of 4" in spoken
    keyboard.press("Enter")
    assert shown.until_range("to - from < 9")[0] == pytest.approx(0.7, abs=0.05)
    keyboard.press("0")
    assert shown.until_range("to - from > 9.9") == (0, 10)
    keyboard.press("+")
    first, last = shown.until_range("to - from < 9.9")
    assert first < 2 < last
    keyboard.press("Shift+ArrowRight")
    assert shown.until_range(f"from > {first}")[0] > first
    keyboard.press("-")
    shown.until_range("to - from > 9.9")
    keyboard.press("Escape")
    shown.page.wait_for_selector("#hover", state="hidden")


GROUND = "() => getComputedStyle(document.body).backgroundColor"
# The least contrast of any text that is seen with what is behind it, as WCAG counts it, and where.
CONTRAST = """() => {
    const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const light = (colour) => {
        const [red, green, blue] = parse(colour).map((value) => {
            const share = value / 255;
            return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    const behind = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const colour = getComputedStyle(at).backgroundColor;
            if ((parse(colour)[3] ?? 1) === 1) return colour;
        }
    };
    let least = [21, ""];
    for (const element of document.querySelectorAll("body *")) {
        const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
        const field = element.tagName === "INPUT";
        if ((!own && !field) || !element.checkVisibility() || element.closest("script, style, noscript")) continue;
        const text = light(getComputedStyle(element, field ? "::placeholder" : undefined).color);
        const ground = light(behind(element));
        const contrast = (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
        if (contrast < least[0]) least = [contrast, element.outerHTML.slice(0, 120)];
    }
    return least;
}"""


def test_dark_and_light_follow_the_system_until_one_is_chosen(show: Show) -> None:
    shown = show(LOST, color_scheme="light")
    light, drawn = shown.value(GROUND), shown.value("() => document.querySelector('#cpu canvas').toDataURL()")
    shown.page.emulate_media(color_scheme="dark")
    shown.page.wait_for_function("(before) => document.querySelector('#cpu canvas').toDataURL() !== before", arg=drawn)
    dark = shown.value(GROUND)
    assert dark != light
    shown.page.locator(".theme label", has_text="Light").click()
    assert shown.value(GROUND) == light
    shown.page.locator(".theme label", has_text="Dark").click()
    assert shown.value(GROUND) == dark
    shown.page.emulate_media(color_scheme="light")
    assert shown.value(GROUND) == dark
    shown.page.reload()
    assert shown.drawn().value(GROUND) == dark
    shown.page.locator(".theme label", has_text="Auto").click()
    assert shown.value(GROUND) == light
    shown.requests.clear()  # the page itself, by the reload


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read(show: Show, scheme: str) -> None:
    shown = show(LOST, color_scheme=scheme)
    shown.hover("#lanes .rows", 4.0, 52 + ROW / 2)
    contrast, where = shown.value(CONTRAST)
    assert contrast >= 4.5, where


def test_a_telephone_is_wide_enough(show: Show) -> None:
    long = "a-rather-long-name-without-any-space-" * 6
    recording = replace(
        LOST,
        command=["make", long],
        leases=[replace(LOST.leases[0], name=long), LOST.leases[1]],
        processes=[replace(process, name=long + process.name, command=f"{long} {long}") for process in LOST.processes],
    )
    shown = show(recording)
    for width in (1280, 390, 320):
        shown.page.set_viewport_size({"width": width, "height": 800})
        fits = f"innerWidth === {width} && document.documentElement.scrollWidth === {width}"
        shown.page.wait_for_function(f"() => {fits} && document.querySelector('#slots canvas').clientWidth < {width}")
        shown.hover("#lanes .rows", 4.0, 52 + ROW / 2)
        left, right = shown.value(
            "() => { const { left, right } = document.querySelector('#hover').getBoundingClientRect();"
            " return [left, right]; }"
        )
        assert left >= 0
        assert right <= width
        assert shown.value("() => document.documentElement.scrollWidth") == width


def test_a_finger_drags_and_taps(show: Show) -> None:
    shown = show(has_touch=True)
    shown.page.touchscreen.tap(*shown.place("#lanes .rows", 7.0, 1.5 * ROW))
    assert shown.figures()["title"] == "ldpid 13"


def many(processes: int, changes: int) -> Recording:
    """A build of as many processes and changes, each with a command of its own."""
    end = 3600.0
    times = [end * index / changes for index in range(changes)]
    return replace(
        BUILD,
        seconds=end,
        leases=[
            RecordedLease(
                "make", ["make"], [(time, 1 + (7 * index % 13) % 8) for index, time in enumerate(times)], end, 8, 1.0
            )
        ],
        limits=[(0.0, 8)],
        processes=[
            RecordedProcess(
                pid=1000 + index,
                parent=1,
                lease=0,
                name=("cc1", "as", "gcc", "sh", "ld")[index % 5],
                command=f"/usr/lib/gcc/x86_64-linux-gnu/12/cc1 -quiet -I include src/{index % 97}/file{index}.c -O2"
                f" -o /tmp/cc{math.sin(index):.8f}.s",
                start=end * index / processes,
                end=min(end, end * (index + 1 + 7 * math.sin(index) ** 2) / processes),
                cpu=0.01 * (index % 37),
                memory=2**20 + 4096 * (index * 7919 % 10007),
            )
            for index in range(processes)
        ],
    )


# Optimised at the end, by one process: with -flto the compilers do little, and the link does the rest.
MAKEFILE = """\
lib.so: a.o b.o c.o d.o
\tgcc -O3 -flto=1 -flto-partition=none -shared -o $@ $^
%.o: %.c
\tgcc -O3 -flto -fPIC -c -o $@ $<
"""


def work(name: str, functions: int) -> str:
    """A C file that costs the optimiser something."""
    body = "for (int i = 0; i < n; i++) for (int j = 0; j < i; j++) a[j] = a[i] * (j + {0}) + b[j] / (a[j] | {0} + 1);"
    return "\n".join(
        f"void {name}{index}(int n, int *a, int *b) {{ {body.format(index)} }}" for index in range(functions)
    )


@pytest.mark.needs("/proc", "subreaper")
def test_the_slow_link_of_a_real_build_is_named(show: Show, tmp_path: Path, make441: Tool) -> None:
    if not shutil.which("gcc"):
        missing("gcc")
    tmp_path.joinpath("Makefile").write_text(MAKEFILE)
    for name in "abcd":
        tmp_path.joinpath(f"{name}.c").write_text(work(name, 25))
    timings = tmp_path / "timings.json"
    done = run("-j3", f"--timings={timings}", "--", make441.path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    recording = Recording.from_json(json.loads(timings.read_text()))
    shown = show(recording)
    assert shown.text("h1") == make441.path
    assert shown.text(".status") == "succeeded"
    assert "of 3" in shown.text(".tiles")
    longest = shown.page.locator(".serial button").first
    name = longest.locator("code").inner_text()
    assert name in ("lto1", "ld", "collect2", "lto-wrapper")  # whoever of the link's was seen at work most
    link = next(process for process in recording.processes if process.name == name)
    first, last = (float(longest.get_attribute(end) or "nan") for end in ("data-from", "data-to"))
    assert min(last, link.end) - max(first, link.start) > (link.end - link.start) / 2
    shown.page.locator("#search").fill(name)
    shown.page.locator("#search").press("Enter")
    found = shown.figures()
    assert found["title"] == f"{name}pid {link.pid}"
    assert found["command"] == link.command


@pytest.mark.parametrize(("processes", "changes"), [(0, 100_000), (50_000, 50_000)])
def test_a_large_build_is_a_small_file(show: Show, tmp_path: Path, processes: int, changes: int) -> None:
    recording = many(processes, changes)
    shown = show(recording)
    assert (tmp_path / "page.html").stat().st_size < 3_000_000
    middle = shown.value(
        "() => { const {left, top, width} = document.querySelector('#slots canvas').getBoundingClientRect();"
        " return [left + width / 2, top + 80]; }"
    )
    shown.page.mouse.move(*middle)
    found = shown.figures()
    at = float(found["title"].split(":")[0].removeprefix("At ")) * 60 + float(found["title"].split(":")[1])
    with suppress(IndexError):
        count = recording.leases[0].changes[int(at * changes / 3600)][1]
        assert found["Slots in use"] == f"{count} of 8"
    if processes:
        shown.page.locator("#search").fill("file31415.c")
        assert shown.text("#matches") == "1 of 50,000"
        shown.page.locator("#search").press("Enter")
        assert "file31415.c" in shown.figures()["command"]
