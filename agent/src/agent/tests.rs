//! The assembly, before raft is up.

use super::*;

#[tokio::test(flavor = "current_thread")]
async fn what_is_asked_before_raft_is_up_waits_for_the_driver_and_a_stop_does_not() {
    let (sender, mut inputs) = mpsc::unbounded_channel();
    let (reply, mut answer) = oneshot::channel();
    sender.send(Input::Request(Request::Metrics(reply))).unwrap();
    let (done, is_done) = oneshot::channel();
    sender.send(Input::Request(Request::Stop { done, within: 0 })).unwrap();
    let mut early = Vec::new();
    stop_requested(&mut inputs, &mut early).await;
    is_done.await.unwrap();
    assert!(matches!(early[..], [Input::Request(Request::Metrics(_))]));
    assert_eq!(answer.try_recv().err(), Some(oneshot::error::TryRecvError::Empty), "it is still to be answered");
}
