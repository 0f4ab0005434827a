//! `top`: rates as they are now, of chains, hops, instances and drops.
//!
//! [`rates`] makes rates of two readings of the counters, [`lines`] makes lines of them, sorted, and [`screen`] draws on
//! a terminal.

mod lines;
mod rates;
mod screen;

use std::io::IsTerminal;
use std::pin::pin;
use std::time::Duration;

use catena_api::types::CountersReport;
use catena_control::Mode;
use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use futures::{Stream, StreamExt, stream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use self::rates::{Rates, Sample};
use self::screen::Screen;
use super::counters;
use crate::arguments::{Connection, Format, Order, Top, View};
use crate::client::Client;
use crate::error::CliError;
use crate::output;

pub async fn top(connection: &Connection, arguments: &Top) -> Result<(), CliError> {
    let terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if arguments.once || !terminal || arguments.output.output != Format::Table {
        once(connection, arguments).await
    } else {
        live(connection, arguments).await
    }
}

/// Measures for one interval, and prints what was found.
async fn once(connection: &Connection, arguments: &Top) -> Result<(), CliError> {
    let before = sample(connection).await?;
    tokio::time::sleep(arguments.interval).await;
    let now = sample(connection).await?;
    counters::warn(&now.report.unread);
    let rates = Rates::between(&before, &now).sorted(arguments.sort);
    output::answer(arguments.output.output, &rates, |rates| {
        let sections = lines::sections(rates, arguments.view);
        let shown: Vec<String> = sections.iter().map(lines::Section::to_string).collect();
        shown.join("\n")
    })
}

async fn sample(connection: &Connection) -> Result<Sample, CliError> {
    let mut client = Client::connect(connection, Mode::Look).await?;
    let report: CountersReport = client.get("counters").await?;
    Ok(Sample { at: Instant::now(), report })
}

/// What is shown, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shown {
    view: View,
    order: Order,
}

/// What the person wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Quit,
    Show(Shown),
}

/// Shows rates until the person, or a signal, ends it. The terminal is then as it was.
async fn live(connection: &Connection, arguments: &Top) -> Result<(), CliError> {
    // What is wrong from the beginning is said on the terminal as it is.
    let first = sample(connection).await?;
    let mut signals = Signals::new().map_err(CliError::Signals)?;
    let mut readings = pin!(readings(connection, arguments.interval, first));
    let mut shown = Shown { view: arguments.view, order: arguments.sort };
    let mut latest = Latest::None;
    let mut screen = Screen::enter().map_err(CliError::Terminal)?;
    let mut keys = EventStream::new();
    loop {
        screen.draw(|size| page(&latest, shown, arguments.interval, size)).map_err(CliError::Terminal)?;
        tokio::select! {
            event = keys.next() => match event {
                Some(Ok(Event::Key(key))) => match wish(key, shown) {
                    Some(Wish::Quit) => return Ok(()),
                    Some(Wish::Show(other)) => shown = other,
                    None => {}
                },
                // Another size: it is drawn anew.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(CliError::Terminal(error)),
                None => return Ok(()),
            },
            reading = readings.next() => match reading {
                Some(Ok(rates)) => latest = Latest::Rates(rates),
                Some(Err(error)) => latest = Latest::Failed(error.to_string()),
                None => return Ok(()),
            },
            () = signals.any() => return Ok(()),
        }
    }
}

#[derive(Debug)]
enum Latest {
    None,
    Rates(Rates),
    /// The controller may come back.
    Failed(String),
}

/// The rates of each interval.
fn readings(
    connection: &Connection,
    interval: Duration,
    first: Sample,
) -> impl Stream<Item = Result<Rates, CliError>> {
    stream::unfold(first, move |before| async move {
        tokio::time::sleep(interval).await;
        Some(match sample(connection).await {
            Ok(now) => (Ok(Rates::between(&before, &now)), now),
            Err(error) => (Err(error), before),
        })
    })
}

fn page(latest: &Latest, shown: Shown, interval: Duration, size: screen::Size) -> Vec<String> {
    match latest {
        Latest::None => lines::page(None, shown.view, &format!("measuring for {interval:?} …"), size),
        Latest::Failed(error) => lines::page(None, shown.view, &format!("{error}; trying again"), size),
        Latest::Rates(rates) => {
            let sorted = rates.clone().sorted(shown.order);
            lines::page(Some(&sorted), shown.view, &headline(&sorted, shown.order), size)
        }
    }
}

fn headline(rates: &Rates, order: Order) -> String {
    let order = match order {
        Order::Packets => "packets",
        Order::Bytes => "bytes",
        Order::Drops => "drops",
        Order::Name => "name",
    };
    let unread: Vec<&str> = rates.unread.iter().map(|unread| unread.element.as_str()).collect();
    let unread = match unread.is_empty() {
        true => String::new(),
        false => format!("; cannot be read: {}", unread.join(", ")),
    };
    format!("catena top: per second, over {:.1} s, by {order}{unread}", rates.seconds)
}

fn wish(key: KeyEvent, shown: Shown) -> Option<Wish> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    let order = |order| Some(Wish::Show(Shown { order, ..shown }));
    match key.code {
        KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Wish::Quit),
        KeyCode::Char('q') | KeyCode::Esc => Some(Wish::Quit),
        KeyCode::Char('p') => order(Order::Packets),
        KeyCode::Char('b') => order(Order::Bytes),
        KeyCode::Char('d') => order(Order::Drops),
        KeyCode::Char('n') => order(Order::Name),
        KeyCode::Tab => Some(Wish::Show(Shown { view: next(shown.view), ..shown })),
        _ => None,
    }
}

fn next(view: View) -> View {
    match view {
        View::All => View::Chains,
        View::Chains => View::Hops,
        View::Hops => View::Instances,
        View::Instances => View::Drops,
        View::Drops => View::All,
    }
}

/// The signals that end a program: the terminal must be given back first.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> std::io::Result<Self> {
        let [interrupt, terminate, hangup] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    async fn any(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_choose_what_is_shown() {
        let shown = Shown { view: View::All, order: Order::Packets };
        let press = |code| wish(KeyEvent::from(code), shown);
        assert_eq!(press(KeyCode::Char('q')), Some(Wish::Quit));
        assert_eq!(press(KeyCode::Char('x')), None);
        let drops = Shown { order: Order::Drops, ..shown };
        assert_eq!(press(KeyCode::Char('d')), Some(Wish::Show(drops)));
        let control = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(wish(control, shown), Some(Wish::Quit));
        // Every view is reached by the tabulator, and the last leads to the first.
        let mut at = shown;
        let mut seen = Vec::new();
        while let Some(Wish::Show(next)) = wish(KeyEvent::from(KeyCode::Tab), at) {
            seen.push(next.view);
            at = next;
            if next == shown {
                break;
            }
        }
        assert_eq!(seen, [View::Chains, View::Hops, View::Instances, View::Drops, View::All]);
    }
}
