//! What a spawner works with, kept where its thread finds it if somebody kills the spawner.
//!
//! What a killed task had on its stack is lost. So its work lies here instead, and may be taken up by the thread if the
//! task was asleep when it died: waiting for something to do, or for a child to leave its memory. Then nothing of the work
//! was half done. (What the child was being made from lies on the stack and is lost.) A task that was killed in the middle of
//! something leaves its work behind for good, and the thread does no more than say that it is gone.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicPtr, Ordering},
};

/// Set while the task sleeps.
#[derive(Debug, Clone, Default)]
pub(super) struct Asleep(Arc<AtomicBool>);

impl Asleep {
    /// Says that nothing is half done until `sleep` has returned.
    pub(super) fn during<T>(&self, sleep: impl FnOnce() -> T) -> T {
        self.0.store(true, Ordering::SeqCst);
        let slept = sleep();
        self.0.store(false, Ordering::SeqCst);
        slept
    }
}

/// The place for it.
#[derive(Debug)]
pub(super) struct Desk<W> {
    work: AtomicPtr<W>,
    pub(super) asleep: Asleep,
}

impl<W> Default for Desk<W> {
    fn default() -> Self {
        Self {
            work: AtomicPtr::default(),
            asleep: Asleep::default(),
        }
    }
}

impl<W> Desk<W> {
    /// In the task: works on what lies here meanwhile.
    pub(super) fn work<T>(&self, work: W, act: impl FnOnce(&mut W) -> T) -> T {
        let place = Box::into_raw(Box::new(work));
        self.work.store(place, Ordering::SeqCst);
        // SAFETY: it was just made, and is taken from here by `left` only if this task is dead.
        let answer = act(unsafe { &mut *place });
        self.work.store(std::ptr::null_mut(), Ordering::SeqCst);
        // SAFETY: it is nobody else's any more, and was not freed before.
        drop(unsafe { Box::from_raw(place) });
        answer
    }

    /// Takes up what a task has left here, if that is in order.
    ///
    /// # Safety
    /// The task that called [`work`](Self::work) is dead.
    pub(super) unsafe fn left(&self) -> Option<Box<W>> {
        if !self.asleep.0.load(Ordering::SeqCst) {
            return None;
        }
        let place = self.work.swap(std::ptr::null_mut(), Ordering::SeqCst);
        // SAFETY: `work` has made it by `Box`, and the only one who used it is dead; it slept, so that no change of it
        // was under way.
        (!place.is_null()).then(|| unsafe { Box::from_raw(place) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_sleeper_has_left_is_taken_up() {
        let desk = Arc::new(Desk::default());
        let dropped = Arc::new(());
        let theirs = Arc::clone(&desk);
        let work = Arc::clone(&dropped);
        // Nobody kills here: the closure unwinds, as if the task had stopped there.
        let die = |asleep: bool| {
            let (desk, work) = (Arc::clone(&theirs), Arc::clone(&work));
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                desk.work(work, |_| {
                    if asleep {
                        desk.asleep.during(|| panic!("dies asleep"));
                    }
                    panic!("dies awake");
                })
            }))
        };
        assert!(die(false).is_err());
        // SAFETY: nobody works there any more.
        assert!(unsafe { desk.left() }.is_none());
        assert!(die(true).is_err());
        // SAFETY: as above.
        assert!(unsafe { desk.left() }.is_some_and(|work| Arc::ptr_eq(&work, &dropped)));
        // SAFETY: as above.
        assert!(unsafe { desk.left() }.is_none(), "once");
    }
}
