// Mouse, touch and keys on the tracks; search; the theme.

const STEP = 0.02; // of what is shown: how far a key moves the cursor

/** Wheel, drag, pinch and double click. `timeline` is told of points and moves the view. */
function listenToPointers(tracks, view, timeline) {
  const held = new Map(); // the x of each finger or button that is down
  let moved = false;
  const place = (event) => event.clientX - tracks.getBoundingClientRect().left;
  const timeOf = (x) => view.time(x, tracks.clientWidth);

  tracks.addEventListener("wheel", (event) => {
    const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY) || event.shiftKey;
    if (sideways) view.pan(((event.deltaX || event.deltaY) / tracks.clientWidth) * view.span);
    else if (event.ctrlKey || event.metaKey || document.activeElement === tracks) {
      if (event.deltaY > 0 && view.span >= view.seconds) return; // nothing to zoom out of: the page scrolls
      view.zoom(2 ** (Math.max(-100, Math.min(100, event.deltaY)) / 150), timeOf(place(event)));
    } else return;
    event.preventDefault();
    timeline.point(event.clientX, event.clientY);
  }, { passive: false });

  tracks.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.target.closest(".overview")) return;
    held.set(event.pointerId, place(event));
    moved = false;
  });
  tracks.addEventListener("pointermove", (event) => {
    const x = place(event);
    const before = held.get(event.pointerId);
    if (before === undefined) return timeline.point(event.clientX, event.clientY);
    if (!moved && Math.abs(x - before) < 4) return;
    if (!moved) tracks.setPointerCapture(event.pointerId);
    moved = true;
    tracks.classList.add("dragged");
    const other = [...held].find(([pointer]) => pointer !== event.pointerId)?.[1];
    if (other === undefined) view.pan(((before - x) / tracks.clientWidth) * view.span);
    else view.zoom(Math.max(0.5, Math.min(2, Math.abs(before - other) / Math.max(1, Math.abs(x - other)))), timeOf(other));
    held.set(event.pointerId, x);
    timeline.leave();
  });
  const release = (event) => {
    if (held.delete(event.pointerId) && !moved) timeline.point(event.clientX, event.clientY);
    tracks.classList.remove("dragged");
  };
  tracks.addEventListener("pointerup", release);
  tracks.addEventListener("pointercancel", release);
  tracks.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && timeline.leave());
  tracks.addEventListener("dblclick", (event) => {
    if (!event.target.closest(".overview")) timeline.open(timeOf(place(event)));
  });
}

/** The overview moves what is shown to where it is pressed. */
function listenToOverview(overview, view) {
  const move = (event) => {
    const { left, width } = overview.getBoundingClientRect();
    const middle = ((event.clientX - left) / width) * view.seconds;
    view.pan(middle - view.span / 2 - view.from);
  };
  overview.addEventListener("pointerdown", (event) => {
    overview.setPointerCapture(event.pointerId);
    move(event);
  });
  overview.addEventListener("pointermove", (event) => overview.hasPointerCapture(event.pointerId) && move(event));
}

function listenToKeys(tracks, view, timeline, search) {
  const pan = (share) => view.pan(share * view.span);
  const keys = {
    ArrowLeft: (event) => (event.shiftKey ? pan(-0.25) : timeline.moveCursor(-STEP)),
    ArrowRight: (event) => (event.shiftKey ? pan(0.25) : timeline.moveCursor(STEP)),
    ArrowUp: () => timeline.choose(-1),
    ArrowDown: () => timeline.choose(1),
    PageUp: () => pan(-1),
    PageDown: () => pan(1),
    Home: () => view.pan(-view.seconds),
    End: () => view.pan(view.seconds),
    Enter: () => timeline.open(),
    Escape: () => timeline.leave(),
    "+": () => view.zoom(1 / 1.5, timeline.cursor ?? undefined),
    "=": () => view.zoom(1 / 1.5, timeline.cursor ?? undefined),
    "-": () => view.zoom(1.5, timeline.cursor ?? undefined),
    0: () => view.show(0, view.seconds),
  };
  tracks.addEventListener("keydown", (event) => {
    const act = Object.hasOwn(keys, event.key) ? keys[event.key] : null;
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act(event);
  });
  tracks.addEventListener("blur", () => timeline.leave());
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target.matches("input:not([type=radio])") || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    search.focus();
  });
}

/**
 * Which processes a search hides, and how many it finds. What is the name of a program finds that program; anything
 * else is looked for in names, commands and process numbers.
 */
function searched({ processes, programs, commands }, words) {
  const wanted = words.trim().toLowerCase();
  if (!wanted) return { fades: null, found: [] };
  const named = programs.map((name) => name.toLowerCase());
  const exact = named.includes(wanted);
  const inName = named.map((name) => (exact ? name === wanted : name.includes(wanted)));
  const inCommand = exact ? null : commands.map((command) => command.toLowerCase().includes(wanted));
  const fades = new Uint8Array(processes.count);
  const found = [];
  for (let process = 0; process < processes.count; process++) {
    const hit =
      inName[processes.program[process]] ||
      inCommand?.[processes.command[process]] ||
      String(processes.pid[process]) === wanted;
    if (hit) found.push(process);
    else fades[process] = 1;
  }
  return { fades, found };
}

/** The search field: what does not match fades, Enter goes from match to match, Escape ends it. */
function listenToSearch(search, matches, recording, timeline) {
  let found = [];
  let next = 0;
  const look = () => {
    const result = searched(recording, search.value);
    found = result.found;
    next = 0;
    matches.textContent = result.fades
      ? `${found.length.toLocaleString("en")} of ${recording.processes.count.toLocaleString("en")}`
      : "";
    timeline.fade(result.fades);
  };
  search.addEventListener("input", look);
  search.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && found.length) timeline.show(found[next++ % found.length]);
    if (event.key === "Escape" && search.value) {
      search.value = "";
      look();
    }
  });
  document.getElementById("programs").addEventListener("click", (event) => {
    const button = event.target.closest("[data-program]");
    if (!button) return;
    search.value = button.dataset.program;
    look();
    document.querySelector(".timeline").scrollIntoView({ block: "start" });
  });
}

/** The switch between the system's theme, light and dark. It is remembered where the browser has room for a file's page. */
function listenToTheme(switched) {
  const root = document.documentElement;
  const choose = (theme) => {
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
  };
  const inputs = document.querySelectorAll(".theme input");
  let remembered = "";
  try {
    remembered = localStorage.getItem("jobserver-theme") ?? "";
  } catch {
    // without storage the system's theme stands
  }
  for (const input of inputs) {
    if (input.value === remembered) input.checked = true;
    input.addEventListener("change", () => {
      choose(input.value);
      switched();
      try {
        localStorage.setItem("jobserver-theme", input.value);
      } catch {
        // it holds for this page then
      }
    });
  }
  choose(remembered);
  document.querySelector(".theme").hidden = false;
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", switched);
}
