//! How much goes through, how fast requests may follow each other, and when nothing happens any more.

use super::numbers::Numbers;
use crosspoint_core::Usage;
use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, sleep_until},
};

/// What may go through after a cap was reached, so that an answer can say so.
const SLACK: u64 = 64 * 1024;

/// The bytes of a run, on all its connections.
#[derive(Debug)]
pub(super) struct Meter {
    sent: AtomicU64,
    received: AtomicU64,
    most: (u64, u64),
    /// Those of all runs.
    pub(super) numbers: Numbers,
}

impl Meter {
    pub(super) const fn new(most_sent: u64, most_received: u64, numbers: Numbers) -> Self {
        Self {
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            most: (most_sent, most_received),
            numbers,
        }
    }

    pub(super) fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        usage.sent = self.sent.load(Relaxed);
        usage.received = self.received.load(Relaxed);
        usage
    }

    /// Whether a cap was reached.
    pub(super) fn is_full(&self) -> bool {
        self.sent.load(Relaxed) >= self.most.0 || self.received.load(Relaxed) >= self.most.1
    }

    fn check(counter: &AtomicU64, most: u64) -> io::Result<()> {
        if counter.load(Relaxed) >= most.saturating_add(SLACK) {
            return Err(io::Error::other("the run has moved as many bytes as it may"));
        }
        Ok(())
    }
}

/// One connection of the run.
#[derive(Debug)]
pub(super) struct Line {
    meter: Arc<Meter>,
    moved: Mutex<Instant>,
    busy: AtomicU32,
}

impl Line {
    pub(super) fn new(meter: Arc<Meter>) -> Arc<Self> {
        Arc::new(Self {
            meter,
            moved: Mutex::new(Instant::now()),
            busy: AtomicU32::new(0),
        })
    }

    fn touch(&self) {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// While this lives, silence is not idleness: somebody else looks at the time.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Relaxed);
        Busy(Arc::clone(self))
    }

    /// Answers when no byte has moved for so long.
    pub(super) async fn idle(&self, limit: Duration) {
        loop {
            let now = Instant::now();
            let due = if self.busy.load(Relaxed) > 0 {
                now + limit
            } else {
                *self.moved.lock().unwrap_or_else(PoisonError::into_inner) + limit
            };
            if due <= now {
                return;
            }
            sleep_until(due).await;
        }
    }
}

/// See [`Line::busy`].
#[derive(Debug)]
pub(super) struct Busy(Arc<Line>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.touch();
        self.0.busy.fetch_sub(1, Relaxed);
    }
}

/// A stream of the run whose bytes are counted: what is read from it, the run has sent.
#[derive(Debug)]
pub(super) struct Metered<S> {
    stream: S,
    line: Arc<Line>,
}

impl<S> Metered<S> {
    pub(super) const fn new(stream: S, line: Arc<Line>) -> Self {
        Self { stream, line }
    }

    fn wrote(&self, n: usize) {
        self.line.meter.received.fetch_add(n as u64, Relaxed);
        self.line.meter.numbers.received.increment(n as u64);
        self.line.touch();
    }

    fn may_write(&self) -> io::Result<()> {
        let meter = &self.line.meter;
        Meter::check(&meter.received, meter.most.1)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Meter::check(&self.line.meter.sent, self.line.meter.most.0)?;
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let n = buf.filled().len().saturating_sub(before);
        self.line.meter.sent.fetch_add(n as u64, Relaxed);
        self.line.meter.numbers.sent.increment(n as u64);
        self.line.touch();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.may_write()?;
        let n = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.wrote(n);
        Poll::Ready(Ok(n))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.may_write()?;
        let n = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs))?;
        self.wrote(n);
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Spaces out what costs the host time, so that a run in a loop takes a small part of a core and no more.
#[derive(Debug)]
pub(super) struct Pace {
    each: Duration,
    burst: Duration,
    /// When the bucket is full again.
    full: Mutex<Instant>,
}

impl Pace {
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        let each = Duration::from_secs(1) / per_second.max(1);
        Self {
            each,
            burst: each * burst,
            full: Mutex::new(Instant::now()),
        }
    }

    /// Waits for its turn.
    pub(super) async fn turn(&self) {
        let due = {
            let mut full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
            *full = (*full).max(Instant::now()) + self.each;
            full.checked_sub(self.burst)
        };
        if let Some(due) = due.filter(|due| *due > Instant::now()) {
            sleep_until(due).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_free_and_the_rest_is_spaced() {
        let pace = Pace::new(100, 50);
        let began = Instant::now();
        for turns in [50, 100, 1] {
            for _ in 0..turns {
                pace.turn().await;
            }
        }
        // tokio's timers have a resolution of 1 ms.
        let took = began.elapsed();
        assert!(
            (Duration::from_millis(1010)..Duration::from_millis(1020)).contains(&took),
            "{took:?}"
        );
        tokio::time::sleep(Duration::from_secs(60)).await;
        let began = Instant::now();
        for _ in 0..50 {
            pace.turn().await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_idle_unless_somebody_is_waited_for() {
        let line = Line::new(Arc::new(Meter::new(1, 1, Numbers::new("broker"))));
        let limit = Duration::from_secs(10);
        let began = Instant::now();
        let busy = line.busy();
        tokio::select! {
            () = line.idle(limit) => panic!("it is busy"),
            () = tokio::time::sleep(limit * 5) => {}
        }
        drop(busy);
        line.idle(limit).await;
        assert_eq!(began.elapsed(), limit * 6);
    }
}
