// What is said of a time and of a process: beside the pointer, in the heads of the tracks, and for screen readers.

/** The figures of a process, as pairs of a name and a value. */
function processFigures(recording, process) {
  const { start, end, cpu, memory, parent, lease } = recording.processes;
  const length = end[process] - start[process];
  const figures = [
    ["Start", clock(start[process], 0.001)],
    ["Duration", duration(length)],
    ["CPU", `${duration(cpu[process])}${length > 0 ? ` (${percent(cpu[process] / length)})` : ""}`],
    ["Memory", memory[process] ? size(memory[process]) : "not known"],
    ["Started by", parent[process]],
  ];
  if (recording.leases.length > 1) figures.push(["Lease", recording.leases[lease[process]]?.name ?? "none"]);
  return figures;
}

/** The figures of a lease at a time. */
function leaseFigures(lease, time) {
  const figures = [
    ["In use", countAt(lease, time)],
    ["At most", lease.peak],
    ["Slot-seconds", lease.slotSeconds.toFixed(1)],
    ["Waited in the queue", duration(lease.queueSeconds)],
  ];
  if (lease.lost) figures.push(["Lost tokens", lease.lost]);
  if (lease.overReleased) figures.push(["Tokens too many", lease.overReleased]);
  return figures;
}

/** The figures of the whole build at a time. */
function timeFigures(recording, tracks, time) {
  const slots = [["Slots in use", slotsAt(recording, time)]];
  return slots.concat(tracks.map(({ name, says }) => [name, says(time)]));
}

function slotsAt({ total, limits }, time) {
  const limit = countAt(limits, Math.min(time, limits.end * (1 - 1e-9)));
  return `${countAt(total, time)}${limit ? ` of ${limit}` : ""}`;
}

function element(name, content, kind) {
  const made = document.createElement(name);
  made.append(...[content].flat());
  if (kind) made.className = kind;
  return made;
}

function list(figures) {
  return element("dl", figures.flatMap(([name, value]) => [element("dt", name), element("dd", String(value))]));
}

/** Fills the box with what is at a point: a time, and a process or a lease if one is there. */
function describe(box, recording, tracks, { time, process, lease }) {
  const parts = [];
  if (process !== null) {
    const { program, pid, command } = recording.processes;
    const swatch = element("i", [], `swatch ${programColour(recording, program[process])}`);
    const number = element("span", `pid ${pid[process]}`, "quiet");
    parts.push(element("div", [swatch, element("bdi", recording.programs[program[process]]), number], "title"));
    parts.push(element("code", recording.commands[command[process]]));
    parts.push(list(processFigures(recording, process)));
  } else if (lease !== null) {
    const own = recording.leases[lease];
    parts.push(element("div", element("bdi", own.name), "title"), element("code", own.command));
    parts.push(list(leaseFigures(own, time)));
  }
  parts.push(element("div", `At ${clock(time, 0.001)}`, "title"));
  parts.push(list(timeFigures(recording, tracks, time)));
  box.replaceChildren(...parts);
}

/** The same in one sentence, to be spoken. */
function spoken(recording, tracks, { time, process }) {
  const figures = timeFigures(recording, tracks, time);
  let words = `At ${clock(time, 0.001)}: ${figures.map(([name, value]) => `${name} ${value}`).join(", ")}.`;
  if (process !== null) {
    const { program, pid } = recording.processes;
    const own = processFigures(recording, process).map(([name, value]) => `${name} ${value}`);
    words += ` ${recording.programs[program[process]]}, process ${pid[process]}, ${own.join(", ")}.`;
  }
  return words;
}

/** Puts the box beside a point of the tracks, where it is not in the way and within them. */
function placeBeside(box, tracks, x, y) {
  const gap = 14;
  const { offsetWidth: width, offsetHeight: height } = box;
  const right = x + gap + width <= tracks.clientWidth;
  const left = right ? x + gap : Math.max(0, Math.min(x - gap - width, tracks.clientWidth - width));
  const below = y + gap + height <= tracks.clientHeight;
  box.style.transform = `translate(${left}px, ${below ? y + gap : Math.max(0, y - gap - height)}px)`;
}

/** Says in the head of each track what is at a time, or what is on the whole in view. */
function fillHeads(recording, tracks, view, time) {
  const say = (id, words) => (document.querySelector(`#${id} .now`).textContent = words);
  const shown = time ?? null;
  say("slots", shown === null ? `${meanIn(recording.total, view).toFixed(1)} on average` : slotsAt(recording, shown));
  for (const { id, says } of tracks) say(id, shown === null ? "" : says(shown));
}

/** The mean of a count over what is in view. */
function meanIn(steps, view) {
  return columnsOf(steps, view, 1).mean[0];
}
