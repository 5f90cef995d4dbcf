use super::*;
use crate::proto::header::ClientHeader;
use serde_json::json;
use tokio::io::duplex;

const HOUR: Option<Duration> = Some(Duration::from_secs(3600));

#[tokio::test]
async fn debug_shows_no_header_and_no_body() {
    let (a, b) = duplex(1 << 16);
    let mut writer = FrameWriter::new(a);
    let mut reader = FrameReader::new(b, Limits::FULL);
    for _ in 0..2 {
        writer.queue(&json!({"type": "hunter2"}), b"hunter2").unwrap();
    }
    let waiting = format!("{writer:?}");
    writer.flush().await.unwrap();
    let frame = reader.next(HOUR).await.unwrap().unwrap();
    let shown = format!("{waiting} {reader:?} {frame:?}");
    assert!(shown.contains("body of 7") && !shown.contains("hunter2"), "{shown}");
}

#[tokio::test]
async fn frames_arrive_whole_however_the_stream_cuts_them() {
    for capacity in [1, 7, 64, 4096] {
        let (a, b) = duplex(capacity);
        let mut writer = FrameWriter::new(a);
        let sender = tokio::spawn(async move {
            for seq in 0..20u64 {
                writer.queue(&ClientHeader::Ack { seq }, b"").unwrap();
            }
            writer.send(&json!({"type": "x"}), &[9; 70_000]).await.unwrap();
        });
        let mut reader = FrameReader::new(b, Limits::FULL);
        for seq in 0..20u64 {
            let frame = reader.next(HOUR).await.unwrap().unwrap();
            assert_eq!(frame.header::<ClientHeader>().unwrap(), ClientHeader::Ack { seq });
        }
        let frame = reader.next(HOUR).await.unwrap().unwrap();
        assert_eq!(frame.header::<ClientHeader>().unwrap(), ClientHeader::Unknown);
        assert_eq!(frame.body, vec![9; 70_000]);
        assert!(reader.next(HOUR).await.unwrap().is_none());
        sender.await.unwrap();
    }
}

async fn given_up(write: impl Future<Output = Result<(), ConnError>>) {
    let _ = tokio::time::timeout(Duration::ZERO, write).await;
}

#[tokio::test]
async fn a_write_that_was_given_up_half_way_is_finished_by_the_next() {
    for size in [100, 70_000] {
        let (a, b) = duplex(16);
        let mut writer = FrameWriter::new(a);
        let mut reader = FrameReader::new(b, Limits::FULL);
        let mut frame = Vec::new();
        frame::encode(&json!({"type": "x"}), &vec![9; size], &mut frame).unwrap();
        given_up(writer.queue_encoded(frame.into())).await;
        given_up(writer.flush()).await;
        assert!(!writer.is_empty());
        let sender = tokio::spawn(async move {
            writer.send(&ClientHeader::Heartbeat, b"").await.unwrap();
            assert!(writer.is_empty());
        });
        assert_eq!(reader.next(HOUR).await.unwrap().unwrap().body, vec![9; size]);
        let frame = reader.next(HOUR).await.unwrap().unwrap();
        assert_eq!(frame.header::<ClientHeader>().unwrap(), ClientHeader::Heartbeat);
        sender.await.unwrap();
    }
}

#[tokio::test]
async fn a_kept_frame_does_not_keep_what_came_with_it() {
    let (a, b) = duplex(1 << 20);
    let mut writer = FrameWriter::new(a);
    for _ in 0..2 {
        writer.queue(&json!({"type": "large"}), &vec![0; 100_000]).unwrap();
        writer.queue(&ClientHeader::Heartbeat, b"small").unwrap();
    }
    writer.flush().await.unwrap();
    let mut reader = FrameReader::new(b, Limits::FULL);
    for _ in 0..2 {
        reader.next(HOUR).await.unwrap().unwrap();
        let small = reader.next(HOUR).await.unwrap().unwrap();
        let body = small.body.clone();
        assert_eq!((&*body, body.clone().try_into_mut().is_err()), (&b"small"[..], true));
        drop(small);
        let body = body.try_into_mut().unwrap();
        assert!(body.capacity() < 100, "{} bytes are kept", body.capacity());
    }
}

#[tokio::test]
async fn a_body_that_nobody_wants_is_not_held() {
    let (a, b) = duplex(1 << 12);
    let mut writer = FrameWriter::new(a);
    let sender = tokio::spawn(async move {
        for size in [0, 1, 1 << 20] {
            writer.send(&json!({"type": "run"}), &vec![0; size]).await.unwrap();
        }
        writer.send(&ClientHeader::Ack { seq: 7 }, b"").await.unwrap();
    });
    let mut reader = FrameReader::new(b, Limits::FULL);
    for _ in 0..3 {
        let frame = reader.next_without_body().await.unwrap().unwrap();
        assert!(frame.body.is_empty() && reader.buffer.capacity() <= READ_AHEAD);
    }
    let frame = reader.next_without_body().await.unwrap().unwrap();
    assert_eq!(frame.header::<ClientHeader>().unwrap(), ClientHeader::Ack { seq: 7 });
    sender.await.unwrap();
    assert!(reader.next_without_body().await.unwrap().is_none());
}

#[tokio::test]
async fn an_end_inside_a_frame_is_told_from_a_clean_one() {
    let (mut a, b) = duplex(64);
    a.write_all(&[5, 0]).await.unwrap();
    drop(a);
    let got = FrameReader::new(b, Limits::FULL).next(HOUR).await;
    assert!(matches!(got, Err(ConnError::Truncated)));
}

#[tokio::test(start_paused = true)]
async fn silence_is_counted_from_the_last_byte_even_when_the_wait_is_cancelled() {
    let (mut a, b) = duplex(64);
    let mut reader = FrameReader::new(b, Limits::FULL);
    let start = Instant::now();
    a.write_all(&[5]).await.unwrap();
    for _ in 0..4 {
        let wait = tokio::time::timeout(Duration::from_secs(10), reader.next(Some(SILENCE)));
        assert!(wait.await.is_err(), "gave up early");
    }
    assert!(matches!(reader.next(Some(SILENCE)).await, Err(ConnError::Silent(_))));
    assert_eq!(start.elapsed().as_secs(), SILENCE.as_secs());
}

#[tokio::test]
async fn a_large_frame_to_a_stranger_is_refused_before_its_body_arrives() {
    let (a, b) = duplex(1 << 16);
    let mut writer = FrameWriter::new(a);
    writer.send(&json!({"type": "hello"}), b"x").await.unwrap();
    let got = FrameReader::new(b, Limits::HELLO).next(HOUR).await;
    assert!(matches!(got, Err(ConnError::Frame(FrameError::BodyTooLong { size: 1, limit: 0 }))));
}
