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

/// A reader that shares `arrivals`, and the stream that it reads.
fn sharing(arrivals: &Arrivals) -> (tokio::io::DuplexStream, FrameReader<tokio::io::DuplexStream>) {
    let (a, b) = duplex(2 << 20);
    let mut reader = FrameReader::new(b, Limits::FULL);
    reader.set_arrivals(arrivals.clone());
    (a, reader)
}

/// One frame of so many bytes.
fn sized(len: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    let header = json!({"type": "x"});
    frame::encode(&header, &vec![9; len], &mut frame).unwrap();
    let more = frame.len() - len;
    frame.clear();
    frame::encode(&header, &vec![9; len - more], &mut frame).unwrap();
    assert_eq!(frame.len(), len);
    frame
}

/// None if it waits.
async fn poll_next<R: AsyncRead + Unpin>(
    reader: &mut FrameReader<R>,
) -> Option<Result<Option<Frame>, ConnError>> {
    tokio::time::timeout(Duration::ZERO, reader.next(Some(SILENCE))).await.ok()
}

#[tokio::test(start_paused = true)]
async fn a_long_frame_waits_for_room_and_a_short_one_does_not() {
    let arrivals = Arrivals::default();
    let long = ARRIVING_LIMIT / 64;
    let mut held = Vec::new();
    for _ in 0..64 {
        let (mut stream, mut reader) = sharing(&arrivals);
        stream.write_all(&sized(long)[..long - 1]).await.unwrap();
        assert!(poll_next(&mut reader).await.is_none());
        held.push((stream, reader));
    }
    let (mut stream, mut reader) = sharing(&arrivals);
    for len in [200, ARRIVING_FREE] {
        stream.write_all(&sized(len)).await.unwrap();
        assert_eq!(poll_next(&mut reader).await.unwrap().unwrap().unwrap().size(), len);
    }
    stream.write_all(&sized(ARRIVING_FREE + 1)).await.unwrap();
    // Who is not read is not silent, and one that gave up waiting waits again.
    for _ in 0..3 {
        assert!(poll_next(&mut reader).await.is_none());
        let wait = tokio::time::timeout(Duration::from_secs(40), reader.next(Some(SILENCE)));
        assert!(wait.await.is_err());
        assert!(reader.buffer.capacity() <= 4 * ARRIVING_FREE, "{}", reader.buffer.capacity());
    }
    let (stream, reader_of_it) = &mut held[0];
    stream.write_all(&[9]).await.unwrap();
    let whole = reader_of_it.next(HOUR).await.unwrap().unwrap();
    let got = reader.next(Some(SILENCE)).await.unwrap().unwrap();
    assert_eq!((whole.size(), got.size()), (long, ARRIVING_FREE + 1));
}

#[tokio::test]
async fn what_follows_a_long_frame_does_not_keep_its_memory() {
    let (mut stream, mut reader) = sharing(&Arrivals::default());
    stream.write_all(&sized(1 << 20)[..(1 << 20) - 5]).await.unwrap();
    assert!(poll_next(&mut reader).await.is_none());
    stream.write_all(&[9; 5]).await.unwrap();
    stream.write_all(&sized(200)[..3]).await.unwrap();
    drop(poll_next(&mut reader).await.unwrap().unwrap().unwrap());
    assert!(poll_next(&mut reader).await.is_none());
    assert!(reader.buffer.capacity() <= 4 * READ_AHEAD, "{}", reader.buffer.capacity());
}

#[tokio::test]
async fn a_long_header_has_room_for_the_longest_body_behind_it() {
    let arrivals = Arrivals::default();
    let _rest = arrivals.room(ARRIVING_LIMIT - Limits::FULL.longest()).await;
    let (mut stream, mut reader) = sharing(&arrivals);
    let mut frame = Vec::new();
    let header = json!({"type": "x", "padding": "x".repeat(60_000)});
    frame::encode(&header, &[9; frame::BODY_LIMIT], &mut frame).unwrap();
    stream.write_all(&frame[..50_000]).await.unwrap();
    assert!(poll_next(&mut reader).await.is_none());
    let (mut other, mut waits) = sharing(&arrivals);
    other.write_all(&sized(ARRIVING_FREE + 1)).await.unwrap();
    assert!(poll_next(&mut waits).await.is_none());
    stream.write_all(&frame[50_000..]).await.unwrap();
    assert_eq!(reader.next(HOUR).await.unwrap().unwrap().size(), frame.len());
    assert_eq!(waits.next(HOUR).await.unwrap().unwrap().size(), ARRIVING_FREE + 1);
}

#[tokio::test(start_paused = true)]
async fn who_drips_loses_the_room_in_the_end() {
    let (mut stream, mut reader) = sharing(&Arrivals::default());
    let start = Instant::now();
    stream.write_all(&sized(1 << 20)[..1000]).await.unwrap();
    let drip = async {
        loop {
            tokio::time::sleep(Duration::from_secs(10)).await;
            let _ = stream.write_all(&[9]).await;
        }
    };
    let got = tokio::select! {
        got = reader.next(Some(SILENCE)) => got,
        () = drip => unreachable!(),
    };
    assert!(matches!(got, Err(ConnError::Slow(_))), "{got:?}");
    assert_eq!(start.elapsed(), ARRIVING_TIME);
}
