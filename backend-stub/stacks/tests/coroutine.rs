//! Coroutines on the arena, polled by hand.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use backend_stacks::{
    Arena, ArenaConfig, Coroutine, Guard, Label, NoWait, Panic, Stack, is_here, on_parent, wait,
};

const TEST: Label = Label { service: "Test", method: "coroutine" };

fn arena() -> Rc<Arena> {
    Arena::new(&ArenaConfig { stacks: 64, ..ArenaConfig::default() }).expect("an arena")
}

fn stack(arena: &Rc<Arena>) -> Stack {
    arena.take(TEST).expect("a stack is free")
}

fn poll<T: 'static>(coroutine: &mut Coroutine<T>) -> Poll<Result<T, Panic>> {
    coroutine.poll(&mut Context::from_waker(Waker::noop()))
}

/// Ready when the cell holds a number.
async fn number(cell: Rc<Cell<Option<u64>>>) -> u64 {
    poll_fn(|_| cell.take().map_or(Poll::Pending, Poll::Ready)).await
}

/// Tells when it is dropped.
struct Told(Rc<RefCell<Vec<&'static str>>>, &'static str);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.borrow_mut().push(self.1);
    }
}

#[test]
fn it_stops_where_it_waits_and_goes_on_with_what_came() {
    let arena = arena();
    let cell = Rc::new(Cell::new(None));
    let (a, b) = (cell.clone(), cell.clone());
    let mut coroutine = Coroutine::new(stack(&arena), move || {
        assert!(is_here());
        let first = wait(number(a)).expect("here");
        let second = wait(number(b)).expect("here");
        first * 10 + second
    });
    assert!(poll(&mut coroutine).is_pending() && poll(&mut coroutine).is_pending());
    cell.set(Some(4));
    assert!(poll(&mut coroutine).is_pending());
    cell.set(Some(2));
    assert!(matches!(poll(&mut coroutine), Poll::Ready(Ok(42))));
    assert!(!is_here());
    drop(coroutine);
    assert_eq!(arena.taken(), 0);
}

#[test]
fn many_are_apart_and_run_in_any_order() {
    let arena = arena();
    let cells: Vec<_> = (0..64u64).map(|_| Rc::new(Cell::new(None))).collect();
    let mut coroutines: Vec<_> = cells
        .iter()
        .enumerate()
        .map(|(at, cell)| {
            let cell = cell.clone();
            Coroutine::new(stack(&arena), move || {
                let own = [at as u64; 64];
                let came = wait(number(cell)).expect("here");
                own.iter().sum::<u64>() + came
            })
        })
        .collect();
    assert!(coroutines.iter_mut().all(|coroutine| poll(coroutine).is_pending()));
    for (at, coroutine) in coroutines.iter_mut().enumerate().rev() {
        cells[at].set(Some(1000));
        let Poll::Ready(Ok(value)) = poll(coroutine) else { panic!("it has what it waits for") };
        assert_eq!(value, at as u64 * 64 + 1000);
    }
}

#[test]
fn a_panic_is_an_error_of_its_coroutine_alone() {
    let arena = arena();
    let told = Rc::new(RefCell::new(Vec::new()));
    let kept = Told(told.clone(), "unwound");
    let mut coroutine = Coroutine::new(stack(&arena), move || -> u64 {
        let _kept = kept;
        wait(ready(())).expect("here");
        panic!("out of {}", std::hint::black_box("luck"))
    });
    let Poll::Ready(Err(panic)) = poll(&mut coroutine) else { panic!("it panicked") };
    assert_eq!(panic.downcast_ref::<String>().map(String::as_str), Some("out of luck"));
    assert_eq!(*told.borrow(), ["unwound"]);
    assert!(!std::thread::panicking());
}

#[test]
fn a_future_that_panics_does_so_where_it_is_waited_for() {
    let arena = arena();
    let mut coroutine = Coroutine::new(stack(&arena), || {
        let caught = catch_unwind(AssertUnwindSafe(|| wait(async { panic!("in the future") })));
        caught.is_err()
    });
    assert!(matches!(poll(&mut coroutine), Poll::Ready(Ok(true))));
}

#[test]
fn dropped_while_it_waits_it_is_unwound_and_its_destructors_run() {
    let arena = arena();
    let told = Rc::new(RefCell::new(Vec::new()));
    let (outer, inner) = (Told(told.clone(), "outer"), Told(told.clone(), "inner"));
    let mut coroutine = Coroutine::new(stack(&arena), move || {
        let _outer = outer;
        wait(async move {
            let _inner = inner;
            pending::<()>().await
        })
    });
    assert!(poll(&mut coroutine).is_pending());
    drop(coroutine);
    assert_eq!(*told.borrow(), ["inner", "outer"]);
    assert_eq!(arena.taken(), 0);
    assert!(!std::thread::panicking());
}

#[test]
fn dropped_before_its_first_poll_it_never_runs() {
    let arena = arena();
    let told = Rc::new(RefCell::new(Vec::new()));
    let kept = Told(told.clone(), "dropped");
    drop(Coroutine::new(stack(&arena), move || {
        let _kept = kept;
        unreachable!("nobody polls it");
    }));
    assert_eq!((told.borrow().len(), arena.taken()), (1, 0));
}

#[test]
fn a_destructor_cannot_wait_while_its_coroutine_is_unwound() {
    struct Waits(Rc<Cell<Option<NoWait>>>);
    impl Drop for Waits {
        fn drop(&mut self) {
            self.0.set(wait(ready(())).err());
        }
    }
    let arena = arena();
    let said = Rc::new(Cell::new(None));
    let waits = Waits(said.clone());
    let mut coroutine = Coroutine::new(stack(&arena), move || {
        let _waits = waits;
        wait(pending::<()>())
    });
    assert!(poll(&mut coroutine).is_pending());
    drop(coroutine);
    assert_eq!(said.get(), Some(NoWait::Unwinding));
}

#[test]
fn one_that_catches_its_unwinding_ends_all_the_same() {
    let arena = arena();
    let mut coroutine = Coroutine::new(stack(&arena), || {
        let caught = catch_unwind(AssertUnwindSafe(|| wait(pending::<()>())));
        assert!(caught.is_err());
        wait(ready(())).expect("it may not wait any more")
    });
    assert!(poll(&mut coroutine).is_pending());
    drop(coroutine);
    assert_eq!(arena.taken(), 0);
}

#[test]
fn one_that_another_drops_waits_in_neither() {
    let arena = arena();
    let (other, said) = (arena.clone(), Rc::new(Cell::new(None)));
    let told = said.clone();
    let mut outer = Coroutine::new(stack(&arena), move || {
        let mut inner = Coroutine::new(stack(&other), move || {
            let _ = catch_unwind(AssertUnwindSafe(|| wait(pending::<()>())));
            told.set(wait(ready(())).err());
        });
        assert!(poll(&mut inner).is_pending());
        drop(inner);
        wait(ready(())).expect("this one goes on");
    });
    assert!(matches!(poll(&mut outer), Poll::Ready(Ok(()))));
    assert_eq!(said.get(), Some(NoWait::Outside));
}

#[test]
fn outside_of_a_coroutine_there_is_no_waiting() {
    assert_eq!(wait(ready(())), Err(NoWait::Outside));
    let arena = arena();
    // A future is polled on the loop's stack: code in it is outside as well.
    let mut coroutine = Coroutine::new(stack(&arena), || wait(async { wait(ready(())) }));
    assert!(matches!(poll(&mut coroutine), Poll::Ready(Ok(Ok(Err(NoWait::Outside))))));
}

#[test]
fn a_coroutine_may_drive_another() {
    let arena = arena();
    let other = arena.clone();
    let cell = Rc::new(Cell::new(None));
    let theirs = cell.clone();
    let mut coroutine = Coroutine::new(stack(&arena), move || {
        let mut inner = Coroutine::new(stack(&other), move || wait(number(theirs)).expect("here") + 1);
        wait(poll_fn(move |context| inner.poll(context))).expect("here").expect("no panic") * 2
    });
    assert!(poll(&mut coroutine).is_pending());
    cell.set(Some(20));
    assert!(matches!(poll(&mut coroutine), Poll::Ready(Ok(42))));
}

#[test]
fn one_that_always_finds_what_it_waits_for_lets_others_have_their_turn() {
    let arena = arena();
    let mut coroutine =
        Coroutine::new(stack(&arena), || (0..300).for_each(|_| wait(ready(())).expect("here")));
    let turns = (1..).find(|_| poll(&mut coroutine).is_ready()).expect("it ends");
    assert_eq!(turns, 3);
}

#[test]
fn what_needs_much_of_a_stack_runs_on_the_parent_s() {
    #[inline(never)]
    fn deep(bytes: &mut [u8; 512 * 1024]) -> usize {
        bytes.fill(1);
        std::hint::black_box(&*bytes).iter().map(|&byte| usize::from(byte)).sum()
    }
    let arena = arena();
    let mut coroutine = Coroutine::new(stack(&arena), || {
        let sum = on_parent(|| {
            assert!(!is_here());
            deep(&mut [0; 512 * 1024])
        });
        assert!(is_here());
        let panicked = catch_unwind(|| on_parent(|| panic!("there")));
        assert!(is_here() && panicked.is_err());
        sum
    });
    assert!(matches!(poll(&mut coroutine), Poll::Ready(Ok(524_288))));
}

#[test]
fn both_ways_to_guard_hold_many_stacks() {
    for guard in [Guard::Install, Guard::Protect] {
        let config = ArenaConfig { stacks: 1000, guard: Some(guard), ..ArenaConfig::default() };
        let arena = Arena::new(&config).expect("an arena");
        if guard == Guard::Install && arena.take(TEST).is_none() {
            eprintln!("skipped: this kernel has no MADV_GUARD_INSTALL");
            continue;
        }
        let mut coroutines: Vec<_> =
            (0..1000).map(|_| Coroutine::new(stack(&arena), || wait(pending::<()>()))).collect();
        assert!(coroutines.iter_mut().all(|coroutine| poll(coroutine).is_pending()));
        assert!(arena.take(TEST).is_none());
        drop(coroutines);
        assert_eq!((arena.taken(), arena.guard()), (0, guard));
    }
}
