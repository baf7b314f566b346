//! What the two sides say to each other.

use std::{thread, time::Duration};

use super::{run::Door, *};

fn hello() -> Hello {
    Hello { incarnation: 7, groups: vec![GroupId::new("a"), GroupId::new("b")], pid: u32::MAX }
}

#[test]
fn an_agent_finds_the_keeper_learns_whom_it_beats_for_and_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    assert!(Held::find(folder.path()).is_none(), "nobody is there");
    let path = socket_in(folder.path());
    std::fs::write(&path, "left over").unwrap();
    let mut door = Door::open(&path).unwrap();
    let keeper = thread::spawn(move || (0..1_000).any(|_| door.wait(10_000_000, &hello())));
    // One that comes and goes does not end it.
    let first = Held::find(folder.path()).unwrap();
    assert_eq!(first.hello(), &hello());
    drop(first);
    let second = Held::find(folder.path()).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    second.watch(move || tell.send(()).unwrap()).unwrap();
    assert!(told.recv_timeout(Duration::from_millis(50)).is_err(), "it is still there");
    second.end();
    assert!(keeper.join().unwrap(), "it heard");
    told.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(!path.exists() && Held::find(folder.path()).is_none());
}

#[test]
fn a_crowd_does_not_shut_the_agent_out_of_ending_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = socket_in(folder.path());
    let mut door = Door::open(&path).unwrap();
    let keeper = thread::spawn(move || (0..1_000).any(|_| door.wait(10_000_000, &hello())));
    let agent = Held::find(folder.path()).unwrap();
    let crowd: Vec<_> = (0..20).map(|_| std::os::unix::net::UnixStream::connect(&path).unwrap()).collect();
    agent.end();
    assert!(keeper.join().unwrap());
    drop(crowd);
}
