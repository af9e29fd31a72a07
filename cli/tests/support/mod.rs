//! A small server that answers from a script and remembers what it was asked, and the client run against it as people run it: as a
//! process, judged by its output and exit code.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

/// How an answer's body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// In order.
    Orderly,
    /// The connection breaks.
    Broken,
    /// Never: the stream stays open.
    Open,
}

/// An answer of the script.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    status: u16,
    kind: &'static str,
    deployment: Option<&'static str>,
    pieces: Vec<Bytes>,
    end: End,
}

impl Answer {
    pub(crate) fn json(status: u16, body: Value) -> Self {
        Self {
            status,
            kind: "application/json",
            deployment: None,
            pieces: vec![Bytes::from(body.to_string())],
            end: End::Orderly,
        }
    }

    pub(crate) fn problem(status: u16, body: Value) -> Self {
        Self { kind: "application/problem+json", ..Self::json(status, body) }
    }

    pub(crate) fn stream(kind: &'static str, pieces: &[&str], end: End) -> Self {
        let pieces = pieces.iter().map(|piece| Bytes::from((*piece).to_owned())).collect();
        Self { status: 200, kind, deployment: None, pieces, end }
    }

    pub(crate) fn deployment(mut self, id: &'static str) -> Self {
        self.deployment = Some(id);
        self
    }
}

/// What the server was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// With the query.
    pub(crate) path: String,
    pub(crate) last_event_id: Option<String>,
    pub(crate) body: Value,
}

#[derive(Debug, Default)]
struct Script {
    routes: Vec<(String, VecDeque<Answer>)>,
    asked: Vec<Asked>,
}

/// The server. It ends with the test's process.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) address: String,
    script: Arc<Mutex<Script>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("sockets can be non-blocking");
        let address = listener.local_addr().expect("it is bound").to_string();
        let script = Arc::new(Mutex::new(Script::default()));
        let server = Self { address, script: script.clone() };
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                loop {
                    let (stream, _) = listener.accept().await.expect("connections come");
                    let script = script.clone();
                    tokio::spawn(async move {
                        let service = service_fn(move |request| answer(script.clone(), request));
                        // A client that goes away in the middle is part of some tests.
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
                    });
                }
            });
        });
        server
    }

    /// Answers `request` (`GET /v2/apps`, query included) with these one after the other; the last again and again.
    pub(crate) fn on(&self, request: &str, answers: impl IntoIterator<Item = Answer>) -> &Self {
        let mut script = self.script.lock().expect("no test panics while holding it");
        script.routes.retain(|(known, _)| known != request);
        script.routes.push((request.to_owned(), answers.into_iter().collect()));
        self
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.script.lock().expect("no test panics while holding it").asked.clone()
    }

    /// What was asked by a method and path.
    pub(crate) fn asked_of(&self, request: &str) -> Vec<Asked> {
        self.asked().into_iter().filter(|asked| format!("{} {}", asked.method, asked.path) == request).collect()
    }

    /// A command of the client against this server.
    pub(crate) fn drover(&self, words: &[&str]) -> Command {
        let mut command = drover(words);
        command.env("DROVER_ADDR", &self.address);
        command
    }
}

/// A command of the client, with nothing of this machine's environment in it.
pub(crate) fn drover(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drover"));
    command
        .args(words)
        .env_clear()
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

async fn answer(script: Arc<Mutex<Script>>, request: Request<Incoming>) -> Result<Response<ScriptBody>, Infallible> {
    let method = request.method().to_string();
    let path = request.uri().path_and_query().map_or_else(String::new, ToString::to_string);
    let last_event_id = request.headers().get("last-event-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let mut script = script.lock().expect("no test panics while holding it");
    let key = format!("{method} {path}");
    script.asked.push(Asked { method, path, last_event_id, body });
    let found = script.routes.iter_mut().find(|(known, _)| *known == key).and_then(|(_, answers)| match answers.len() {
        0 | 1 => answers.front().cloned(),
        _ => answers.pop_front(),
    });
    let found = found.unwrap_or_else(|| Answer::json(404, serde_json::json!({"message": format!("nothing at {key}")})));
    let mut response = Response::builder().status(found.status).header("content-type", found.kind);
    if let Some(id) = found.deployment {
        response = response.header("marathon-deployment-id", id);
    }
    Ok(response.body(ScriptBody { pieces: found.pieces.into(), end: found.end, paused: false }).expect("scripts make answers"))
}

struct ScriptBody {
    pieces: VecDeque<Bytes>,
    end: End,
    paused: bool,
}

impl Body for ScriptBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        match (self.pieces.pop_front(), self.end) {
            (Some(piece), _) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            (None, End::Orderly) => Poll::Ready(None),
            // What was said before is to arrive: pausing once lets the server send it.
            (None, End::Broken) if !std::mem::replace(&mut self.paused, true) => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            (None, End::Broken) => Poll::Ready(Some(Err(std::io::Error::other("the script says so")))),
            (None, End::Open) => Poll::Pending,
        }
    }
}

/// Runs a command to its end.
pub(crate) fn finish(mut command: Command) -> Outcome {
    let Output { status, stdout, stderr } = command.output().expect("the client starts");
    Outcome {
        code: status.code(),
        out: String::from_utf8(stdout).expect("UTF-8"),
        err: String::from_utf8(stderr).expect("UTF-8"),
    }
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Outcome {
    /// Asserts the exit code and that standard error holds each of these.
    #[track_caller]
    pub(crate) fn expect(&self, code: i32, said: &[&str]) -> &Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for part in said {
            assert!(self.err.contains(part), "{part:?} is not in {self:#?}");
        }
        self
    }
}
