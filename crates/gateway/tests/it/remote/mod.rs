//! A pool of real servers, in front and from behind. Time is real here, because sockets do not know about paused clocks.

mod pool;
mod queue;
mod replica;
mod serve;
mod stream;
