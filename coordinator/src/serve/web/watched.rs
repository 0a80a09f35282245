//! A page that is rendered while somebody watches it, shared by all who do.

use super::board::{Board, Region};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// How far a watched page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// Position that the page shows: of the newest event, or of the newest change of a list.
    pub seq: u64,
    /// Whether nothing more will come.
    pub over: bool,
}

/// A page that is rendered as something goes on.
pub struct Watched {
    board: Arc<Mutex<Board>>,
    rendered: watch::Receiver<Rendered>,
    _task: AbortOnDropHandle<()>,
}

impl Watched {
    /// Creates a page with its first regions. `paint` goes on with them until the page is dropped.
    pub fn begin<F>(
        first: Rendered,
        regions: Vec<Region>,
        paint: impl FnOnce(Brush) -> F,
    ) -> Watched
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let board = Arc::new(Mutex::new(Board::new(first.seq, regions)));
        let (sender, rendered) = watch::channel(first);
        let brush = Brush {
            board: Arc::clone(&board),
            sender,
        };
        Watched {
            board,
            rendered,
            _task: AbortOnDropHandle::new(tokio::spawn(paint(brush))),
        }
    }

    /// Returns how far the page is, and its changes.
    pub fn rendered(&self) -> watch::Receiver<Rendered> {
        self.rendered.clone()
    }

    /// Calls a function with the page's regions.
    pub fn read<T>(&self, read: impl FnOnce(&Board) -> T) -> T {
        read(&self.board.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Changes a watched page.
pub struct Brush {
    board: Arc<Mutex<Board>>,
    sender: watch::Sender<Rendered>,
}

impl Brush {
    /// Returns how far the page is.
    pub fn rendered(&self) -> Rendered {
        *self.sender.borrow()
    }

    /// Takes changed regions.
    pub fn paint(&self, rendered: Rendered, regions: Vec<Region>) {
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        board.update(rendered.seq, regions);
        drop(board);
        self.sender.send_replace(rendered);
    }

    /// Takes regions of a page without positions of its own: each change is the next one.
    pub fn paint_next(&self, regions: Vec<Region>) {
        let mut rendered = self.rendered();
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        if board.update(rendered.seq + 1, regions) {
            rendered.seq += 1;
            drop(board);
            self.sender.send_replace(rendered);
        }
    }
}
