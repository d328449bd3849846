//! The Rust crate `jobserver`, in loops that Python can call.

use jobserver::{Acquired, Client, HelperThread};
use std::{ffi::c_void, sync::mpsc, time::Instant};

type Step = extern "C" fn(*mut c_void);

/// The client of the jobserver that MAKEFLAGS names.
#[no_mangle]
pub extern "C" fn crate_open() -> *mut Client {
    let client = unsafe { Client::from_env_ext(false) }.client.unwrap();
    Box::into_raw(Box::new(client))
}

/// # Safety
/// The client is one of `crate_open`, and is not used afterwards.
#[no_mangle]
pub unsafe extern "C" fn crate_close(client: *mut Client) {
    drop(Box::from_raw(client));
}

#[no_mangle]
pub extern "C" fn crate_pairs(client: &Client, pairs: i64) {
    for _ in 0..pairs {
        drop(client.acquire().unwrap());
    }
}

#[no_mangle]
pub extern "C" fn crate_raw_pairs(client: &Client, pairs: i64) {
    for _ in 0..pairs {
        client.acquire_raw().unwrap();
        client.release_raw().unwrap();
    }
}

#[no_mangle]
pub extern "C" fn crate_wait(client: &Client, after_try: bool, worker: *mut c_void, before: Step, held: Step) {
    if after_try {
        client.try_acquire().unwrap();
    }
    loop {
        before(worker);
        let token = client.acquire().unwrap();
        held(worker);
        drop(token);
    }
}

/// A helper thread, and where its tokens arrive.
pub struct Helper {
    thread: HelperThread,
    tokens: mpsc::Receiver<(Instant, Acquired)>,
}

#[no_mangle]
pub extern "C" fn crate_helper() -> *mut Helper {
    let (sender, tokens) = mpsc::channel();
    let thread = Client::new(1)
        .unwrap()
        .into_helper_thread(move |token| sender.send((Instant::now(), token.unwrap())).unwrap())
        .unwrap();
    Box::into_raw(Box::new(Helper { thread, tokens }))
}

/// Nanoseconds from a request to the callback.
#[no_mangle]
pub extern "C" fn crate_helper_ask(helper: &Helper) -> u64 {
    let start = Instant::now();
    helper.thread.request_token();
    let (came, token) = helper.tokens.recv().unwrap();
    drop(token);
    (came - start).as_nanos() as u64
}
