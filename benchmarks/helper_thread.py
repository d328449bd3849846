"""How long does it take from a request to the callback, beside the helper thread of the Rust crate?"""

from __future__ import annotations

import queue
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from jobserver_ffi import Client

from .rows import Row

CRATE = "0.1.35"
TITLE = f"From a request to the callback of the helper thread; the crate `jobserver` {CRATE} = 1.00"
BLOCK = 500  # requests; the two take turns
BLOCKS = 20

CARGO = f"""\
[package]
name = "helper"
version = "0.0.0"
edition = "2021"

[dependencies]
jobserver = "={CRATE}"

[profile.release]
opt-level = 3
"""

MAIN = """\
use std::io::{stdin, stdout, BufRead, Write};
use std::{sync::mpsc, time::Instant};

fn main() {
    let client = jobserver::Client::new(1).unwrap();
    let (sender, receiver) = mpsc::channel();
    let helper = client
        .clone()
        .into_helper_thread(move |token| sender.send((Instant::now(), token.unwrap())).unwrap())
        .unwrap();
    for line in stdin().lock().lines() {
        let mut times = Vec::new();
        for _ in 0..line.unwrap().trim().parse::<usize>().unwrap() {
            let start = Instant::now();
            helper.request_token();
            let (came, token) = receiver.recv().unwrap();
            times.push((came - start).as_nanos());
            drop(token);
        }
        times.sort();
        println!("{}", times[times.len() / 2]);
        stdout().flush().unwrap();
    }
}
"""


def rows() -> Iterator[Row]:
    cargo = shutil.which("cargo")
    if cargo is None:
        yield Row("HelperThread: no cargo here to build the crate with", float("nan"))
        return
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "Cargo.toml").write_text(CARGO)
        Path(directory, "src").mkdir()
        Path(directory, "src", "main.rs").write_text(MAIN)
        subprocess.run([cargo, "build", "--release", "--quiet"], cwd=directory, check=True)
        with subprocess.Popen(
            [Path(directory, "target", "release", "helper")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as theirs:
            turns = list(in_turns(theirs))
    ratio = statistics.median(mine / other for mine, other in turns)
    note = f"{statistics.median(mine for mine, _ in turns) / 1e3:.1f} us"
    yield Row("HelperThread", ratio, "", 1.0, note)


def in_turns(theirs: subprocess.Popen[str]) -> Iterator[tuple[float, float]]:
    """The medians of neighbouring blocks, ours and theirs."""
    assert theirs.stdin is not None
    assert theirs.stdout is not None
    came: queue.SimpleQueue[tuple[int, object]] = queue.SimpleQueue()
    with (
        Client(1) as client,
        client.into_helper_thread(lambda future: came.put((time.perf_counter_ns(), future.result()))) as helper,
    ):
        for _ in range(BLOCKS):
            times = []
            for _ in range(BLOCK):
                start = time.perf_counter_ns()
                helper.request_token()
                at, token = came.get()
                times.append(at - start)
                token.release()  # type: ignore[attr-defined]
            theirs.stdin.write(f"{BLOCK}\n")
            theirs.stdin.flush()
            yield statistics.median(times), float(theirs.stdout.readline())
    theirs.stdin.close()
