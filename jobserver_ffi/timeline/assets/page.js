// Puts the timeline together: what is shown, where the cursor is, and when to draw.

const PROGRAM_COLOURS = Array.from({ length: 9 }, (_, index) => `program-${index}`);
const LEASE_COLOURS = Array.from({ length: 5 }, (_, index) => `lease-${index}`);
const PALETTE = ["text", "quiet", "grid", "sunken", "card", "use", "use-peak", "limit", "serial", "memory", "io", "warn"];

class Timeline {
  constructor(recording) {
    this.recording = recording;
    this.view = new View(recording.seconds, () => this.draw());
    this.lanes = new Lanes(recording);
    this.machine = machineTracks(recording);
    this.cursor = null; // the time under the pointer or the keyboard's cursor
    this.chosen = null; // the process there
    this.serial = [...document.querySelectorAll(".serial button")].map((button) => ({
      button,
      from: Number(button.dataset.from),
      to: Number(button.dataset.to),
    }));
    this.tracks = document.getElementById("tracks");
    this.box = document.getElementById("hover");
    this.rows = document.querySelector("#lanes .rows");
    this.canvas = this.rows.querySelector("canvas");
  }

  /** Shows what there is, and listens. */
  start() {
    document.querySelector(".timeline").hidden = false;
    const { processes, leases } = this.recording;
    document.getElementById("lanes").hidden = !processes.count && leases.length < 2;
    document.querySelector(".search").hidden = !processes.count;
    for (const id of ["cpu", "memory", "pressure"]) {
      document.getElementById(id).hidden = !this.machine.some((track) => track.id === id);
    }
    this.rows.style.height = `${this.lanes.height}px`;
    this.fillLegends();
    const search = document.getElementById("search");
    listenToPointers(this.tracks, this.view, this);
    listenToOverview(document.getElementById("overview"), this.view);
    listenToKeys(this.tracks, this.view, this, search);
    listenToSearch(search, document.getElementById("matches"), this.recording, this);
    listenToTheme(() => this.recolour());
    document.getElementById("zoom-in").addEventListener("click", () => this.view.zoom(1 / 2));
    document.getElementById("zoom-out").addEventListener("click", () => this.view.zoom(2));
    document.getElementById("whole").addEventListener("click", () => this.view.show(0, this.view.seconds));
    for (const { button, from, to } of this.serial) {
      button.addEventListener("click", () => {
        this.view.showAround(from, to);
        document.querySelector(".timeline").scrollIntoView({ block: "nearest" });
      });
    }
    new ResizeObserver(() => this.resize()).observe(this.tracks);
    window.addEventListener("resize", () => this.resize());
    window.addEventListener("scroll", () => this.scroll(), { passive: true });
    this.recolour();
  }

  fillLegends() {
    const entry = (kind, name) => element("span", [element("i", [], `swatch ${kind}`), element("bdi", name)]);
    const { programs, coloured } = this.recording;
    const named = programs.slice(0, coloured).map((name, index) => entry(`program-${index}`, name));
    const others = programs.slice(coloured);
    if (others.length) named.push(entry("program-8", others.length > 4 ? `${others.length} others` : others.join(", ")));
    document.querySelector("#lanes .legend").append(...named);
    const pressure = this.machine.find(({ id }) => id === "pressure")?.lines ?? [];
    const kinds = pressure.map(([, colour, name]) => entry(colour, name));
    document.querySelector("#pressure .legend").append(...kinds);
  }

  recolour() {
    this.palette = colours([...PALETTE, ...PROGRAM_COLOURS, ...LEASE_COLOURS, "program-text"]);
    this.resize();
  }

  /** Fits everything to the window; the lanes are drawn as far as they are in it. */
  resize() {
    if (this.width !== this.tracks.clientWidth) this.leave(); // else the box stays where the page no longer reaches
    this.width = this.tracks.clientWidth;
    this.canvas.style.height = `${Math.min(this.lanes.height, window.innerHeight)}px`;
    drawOverview(document.getElementById("overview"), this.recording, this.view, this.palette);
    this.draw();
  }

  /** Draws with the next frame, once however often it is called. */
  draw() {
    this.waiting ??= requestAnimationFrame(() => {
      this.waiting = null;
      this.drawNow();
    });
  }

  drawNow() {
    const { view, palette, recording } = this;
    drawSlots(document.querySelector("#slots canvas"), recording, view, this.serial, palette);
    this.drawLanes();
    for (const { id, draw } of this.machine) draw(document.querySelector(`#${id} canvas`), view, palette);
    placeWindow(document.getElementById("overview"), view);
    document.getElementById("range").textContent = `${clock(view.from, view.span / 100)} – ${clock(view.to, view.span / 100)}`;
    fillHeads(recording, this.machine, view, this.cursor);
    this.placeCrosshair();
    document.documentElement.dataset.drawn = "";
  }

  drawLanes() {
    this.scrolled = this.canvas.offsetTop;
    this.lanes.draw(this.canvas, this.scrolled, this.view, this.chosen, this.palette);
  }

  scroll() {
    if (this.lanes.height > window.innerHeight && this.canvas.offsetTop !== this.scrolled) this.draw();
  }

  /** Shows the figures of what is at a point of the window. */
  point(clientX, clientY) {
    const area = this.tracks.getBoundingClientRect();
    const x = Math.min(Math.max(0, clientX - area.left), area.width);
    const time = this.view.time(x, area.width);
    const y = clientY - this.rows.getBoundingClientRect().top;
    const row = this.lanes.rowAt(y);
    const process = row === null ? null : this.lanes.processAt(row, time, (3 / area.width) * this.view.span);
    const lease = row === null ? this.lanes.leaseAt(y) : null;
    this.tell({ time, process, lease }, x, clientY - area.top);
  }

  tell(what, x, y) {
    this.cursor = what.time;
    if (this.chosen !== what.process) {
      this.chosen = what.process;
      this.drawLanes();
    }
    this.box.hidden = false;
    describe(this.box, this.recording, this.machine, what);
    placeBeside(this.box, this.tracks, x, y);
    fillHeads(this.recording, this.machine, this.view, what.time);
    this.placeCrosshair();
  }

  placeCrosshair() {
    const line = document.getElementById("crosshair");
    const x = this.cursor === null ? -1 : this.view.x(this.cursor, this.tracks.clientWidth);
    line.hidden = x < 0 || x > this.tracks.clientWidth;
    line.style.left = `${x}px`;
  }

  /** Ends the telling. */
  leave() {
    this.box.hidden = true;
    this.cursor = this.chosen = null;
    this.draw();
  }

  /** Moves the keyboard's cursor by a share of what is shown, and what is shown after it. */
  moveCursor(share) {
    const { view } = this;
    const before = this.cursor ?? view.from + view.span / 2 - share * view.span;
    const time = Math.min(Math.max(0, before + share * view.span), view.seconds);
    if (time < view.from) view.pan(time - view.from);
    if (time > view.to) view.pan(time - view.to);
    const row = this.chosen === null ? null : this.lanes.rowOf[this.chosen];
    this.speak(time, row === null ? null : this.lanes.processAt(row, time, 0));
  }

  /** Chooses the next process (1) or the one before (-1) of those that run at the cursor, from top to bottom. */
  choose(direction) {
    const time = this.cursor ?? this.view.from + this.view.span / 2;
    const there = this.lanes.rows.map((_, row) => this.lanes.processAt(row, time, 0)).filter((found) => found !== null);
    const now = there.indexOf(this.chosen);
    const next = now < 0 && direction < 0 ? there.length - 1 : (now + direction + there.length) % (there.length || 1);
    this.speak(time, there[next] ?? null);
  }

  /** Tells of a time and a process at their place, and for screen readers. */
  speak(time, process) {
    const x = this.view.x(time, this.tracks.clientWidth);
    const rows = this.rows.getBoundingClientRect().top - this.tracks.getBoundingClientRect().top;
    const y = process === null ? 100 : rows + this.lanes.tops[this.lanes.rowOf[process]];
    this.tell({ time, process, lease: null }, x, y);
    document.getElementById("spoken").textContent = spoken(this.recording, this.machine, { time, process });
  }

  /** Zooms to the chosen process, or closer to a time. */
  open(time = this.cursor) {
    if (this.chosen !== null) this.show(this.chosen);
    else if (time !== null) this.view.zoom(1 / 3, time);
  }

  /** Shows one process, with its figures. */
  show(process) {
    const { start, end } = this.recording.processes;
    this.view.showAround(start[process], end[process]);
    this.speak((start[process] + end[process]) / 2, process);
  }

  fade(fades) {
    this.lanes.fades = fades;
    this.draw();
  }
}

try {
  new Timeline(await readRecording()).start();
} catch (error) {
  const failure = document.getElementById("failure");
  failure.textContent = `The charts cannot be drawn in this browser: ${error.message}`;
  failure.hidden = false;
  throw error;
}
