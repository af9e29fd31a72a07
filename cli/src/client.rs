//! The HTTP client: requests to whichever master answers, and failures in drover's words whatever dialect they came in.

use crate::exit::{Exit, Failure};
use crate::stream::{Events, LineTooLong, Lines, SseEvent};
use bytes::Bytes;
use drover_api::drover::{PROBLEM_JSON, Problem, code};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode, Uri, header};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Where a master is looked for when nobody says otherwise.
pub(crate) const ADDRESS_DEFAULT: &str = "http://127.0.0.1:7070";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// A vanished master must not keep a stream open for ever.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Failures of the client's own; the masters' begin at D1000.
pub(crate) mod own_code {
    /// Nobody answers.
    pub(crate) const UNREACHABLE: &str = "D2001";
    /// An answer that cannot be understood.
    pub(crate) const NONSENSE: &str = "D2002";
    /// A file that cannot be used.
    pub(crate) const BAD_FILE: &str = "D2003";
    /// Several things have names that fit.
    pub(crate) const AMBIGUOUS: &str = "D2004";
    /// It must be confirmed first.
    pub(crate) const UNCONFIRMED: &str = "D2005";
}

/// The masters, tried in turn; whichever answered last comes first.
#[derive(Debug)]
pub(crate) struct Client {
    masters: Vec<String>,
    first: AtomicUsize,
    stale: bool,
    pool: Pool<HttpConnector, Full<Bytes>>,
}

/// A whole answer with a status below 400.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// Header `Marathon-Deployment-Id`.
    pub(crate) deployment: Option<String>,
    /// The body as JSON; null when empty.
    pub(crate) body: Value,
}

/// A request, so that it can be sent to one master after the other.
struct Draft<'a> {
    method: Method,
    path: &'a str,
    accept: &'a str,
    body: Option<Bytes>,
    last_event_id: Option<&'a str>,
}

impl Client {
    /// For these addresses: `host:port` or `http://host:port`, separated by commas.
    ///
    /// With `stale`, reads are answered by whichever master is asked, out of what it knows, leader or not.
    pub(crate) fn new(addresses: &str, stale: bool) -> Result<Self, Failure> {
        let masters = addresses.split(',').map(str::trim).filter(|text| !text.is_empty());
        let masters = masters.map(parse_address).collect::<Result<Vec<_>, _>>()?;
        if masters.is_empty() {
            return Err(
                Failure::new(Exit::Usage, "no address of a master").try_this(format!("drover --addr {ADDRESS_DEFAULT} status"))
            );
        }
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        connector.set_keepalive(Some(KEEPALIVE));
        let pool = Pool::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Ok(Self { masters, first: AtomicUsize::new(0), stale, pool })
    }

    /// Reads a document.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, Failure> {
        Ok(self.send(Method::GET, path, None).await?.body)
    }

    /// Reads a document of drover's own API.
    pub(crate) async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        understand(path, self.get(path).await?)
    }

    /// Reads a document that need not be there.
    pub(crate) async fn find(&self, path: &str) -> Result<Option<Value>, Failure> {
        match self.get(path).await {
            Ok(value) => Ok(Some(value)),
            Err(failure) if failure.exit == Exit::NotFound => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Sends a request and reads the whole answer. An error status becomes a failure.
    pub(crate) async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, Failure> {
        let body = body.map(|value| Bytes::from(value.to_string()));
        let draft = Draft { method, path, accept: "application/json", body, last_event_id: None };
        let answered = tokio::time::timeout(ANSWER_TIMEOUT, async {
            let (master, response) = self.ask(&draft).await?;
            let deployment =
                response.headers().get("marathon-deployment-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
            let body = whole_body(&master, response).await?;
            if body.is_empty() {
                return Ok(Answer { deployment, body: Value::Null });
            }
            // Chronos answers some requests with a sentence that it calls JSON.
            let body =
                serde_json::from_slice(&body).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
            Ok(Answer { deployment, body })
        });
        answered.await.unwrap_or_else(|_| {
            Err(Failure::new(Exit::Unavailable, format!("no answer within {}s", ANSWER_TIMEOUT.as_secs()))
                .because(format!("{} {path}", draft.method))
                .code(own_code::UNREACHABLE))
        })
    }

    /// Opens a stream of lines.
    pub(crate) async fn open_lines(&self, path: &str) -> Result<LineStream, Failure> {
        let accept = "application/x-ndjson";
        let draft = Draft { method: Method::GET, path, accept, body: None, last_event_id: None };
        let (master, response) = self.ask(&draft).await?;
        Ok(LineStream { master, body: response.into_body(), lines: Lines::ndjson() })
    }

    /// Opens a stream of events, from `last_event_id` on.
    pub(crate) async fn open_events(&self, path: &str, last_event_id: Option<&str>) -> Result<EventStream, Failure> {
        let draft = Draft { method: Method::GET, path, accept: "text/event-stream", body: None, last_event_id };
        let (master, response) = self.ask(&draft).await?;
        Ok(EventStream { master, body: response.into_body(), events: Events::default() })
    }

    /// Asks one master after the other until one takes the request. A read is asked of the next one also when a master breaks off
    /// or has no leader; a write only if the master certainly did nothing with it.
    async fn ask(&self, draft: &Draft<'_>) -> Result<(String, Response<Incoming>), Failure> {
        let first = self.first.load(Ordering::Relaxed);
        let mut failures = Vec::new();
        for turn in 0..self.masters.len() {
            let at = (first + turn) % self.masters.len();
            let master = &self.masters[at];
            match self.ask_one(master, draft).await {
                Ok(response) => {
                    self.first.store(at, Ordering::Relaxed);
                    return Ok((master.clone(), response));
                }
                Err(failed) if failed.may_ask_another => failures.push(failed.failure),
                Err(failed) => return Err(failed.failure),
            }
        }
        let mut failures = failures.into_iter();
        let mut failure = failures.next().expect("there is at least one master");
        failure.because.extend(failures.flat_map(|other| other.because));
        Err(failure)
    }

    async fn ask_one(&self, master: &str, draft: &Draft<'_>) -> Result<Response<Incoming>, Refused> {
        let is_read = draft.method == Method::GET;
        let stale = match (self.stale && is_read, draft.path.contains('?')) {
            (false, _) => "",
            (true, false) => "?stale=1",
            (true, true) => "&stale=1",
        };
        let uri: Uri = format!("{master}{}{stale}", draft.path).parse().map_err(|error: hyper::http::uri::InvalidUri| {
            Failure::new(Exit::Usage, format!("{:?} makes no address", draft.path)).caused_by(&error)
        })?;
        let mut request = Request::builder().method(draft.method.clone()).uri(uri).header(header::ACCEPT, draft.accept);
        if draft.body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(id) = draft.last_event_id {
            request = request.header("last-event-id", id);
        }
        let request = request
            .body(Full::new(draft.body.clone().unwrap_or_default()))
            .map_err(|error| Failure::new(Exit::Usage, "the request cannot be written").caused_by(&error))?;
        let response = self.pool.request(request).await.map_err(|error| Refused {
            may_ask_another: is_read || error.is_connect(),
            failure: unreachable(master, &error),
        })?;
        let status = response.status();
        if status.as_u16() < 400 {
            return Ok(response);
        }
        let (head, body) = response.into_parts();
        let is_problem = head
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .is_some_and(|kind| kind.starts_with(PROBLEM_JSON));
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let failure = failure_of(status, is_problem, &body, draft.path);
        let did_nothing = failure.code.as_deref() == Some(code::NO_LEADER) || status == StatusCode::SERVICE_UNAVAILABLE;
        let may_ask_another = did_nothing || (is_read && status == StatusCode::BAD_GATEWAY);
        Err(Refused { may_ask_another, failure })
    }
}

struct Refused {
    may_ask_another: bool,
    failure: Failure,
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self { may_ask_another: false, failure }
    }
}

/// Makes a shape of drover's API of an answer.
pub(crate) fn understand<T: DeserializeOwned>(path: &str, value: Value) -> Result<T, Failure> {
    serde_json::from_value(value).map_err(|error| {
        Failure::new(Exit::Failed, format!("the answer to {path} makes no sense"))
            .caused_by(&error)
            .try_this("drover --version   # and droverd --version on the master")
            .code(own_code::NONSENSE)
    })
}

fn parse_address(text: &str) -> Result<String, Failure> {
    let bad = |why: &str| {
        Failure::new(Exit::Usage, format!("{text:?} is not a master's address"))
            .because(why)
            .try_this(format!("drover --addr {ADDRESS_DEFAULT} status"))
    };
    let bare = match text.split_once("://") {
        None => text,
        Some(("http", bare)) => bare,
        Some((scheme, _)) => return Err(bad(&format!("{scheme} is not spoken here, only http"))),
    };
    let bare = bare.trim_end_matches('/');
    let uri: Uri = format!("http://{bare}").parse().map_err(|_| bad("write host:port"))?;
    let authority = uri.authority().ok_or_else(|| bad("write host:port"))?;
    if uri.path() != "/" || uri.query().is_some() || authority.as_str().contains('@') {
        return Err(bad("write host:port, without a path or a user"));
    }
    match authority.port_u16() {
        Some(_) => Ok(format!("http://{authority}")),
        None => Ok(format!("http://{authority}:7070")),
    }
}

fn unreachable(master: &str, error: &hyper_util::client::legacy::Error) -> Failure {
    let error: &dyn std::error::Error = error;
    // The outermost errors only say that a request failed; the innermost says why.
    let innermost = std::iter::successors(Some(error), |error| error.source()).last().unwrap_or(error);
    Failure::new(Exit::Unavailable, "no master can be reached")
        .because(format!("{master}: {innermost}"))
        .try_this("systemctl status droverd-master   # here; or say where: drover --addr http://MASTER:7070 status")
        .code(own_code::UNREACHABLE)
}

async fn whole_body(master: &str, response: Response<Incoming>) -> Result<Bytes, Failure> {
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    body.map(|body| body.to_bytes()).map_err(|error| broken(master, &*error))
}

fn broken(master: &str, error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::new(Exit::Unavailable, format!("the connection to {master} broke")).caused_by(error).code(own_code::UNREACHABLE)
}

/// A failure of any dialect in drover's words.
fn failure_of(status: StatusCode, is_problem: bool, body: &[u8], path: &str) -> Failure {
    let exit = match status.as_u16() {
        401 | 403 => Exit::NotPermitted,
        404 => Exit::NotFound,
        502..=504 => Exit::Unavailable,
        _ => Exit::Failed,
    };
    if is_problem && let Ok(problem) = serde_json::from_slice::<Problem>(body) {
        return Failure::from((exit, problem));
    }
    let value: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let Some(message) = value.get("message").and_then(Value::as_str) else {
        let text = String::from_utf8_lossy(body);
        let first_line =
            text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('<')).unwrap_or_default();
        let failure = Failure::new(exit, format!("{path} was answered with status {status}"));
        return if first_line.is_empty() { failure } else { failure.because(first_line) };
    };
    // Marathon's and Chronos' sentences: Chronos may append a stack trace, so the first line only.
    let mut failure = Failure::new(exit, message.lines().next().unwrap_or_default());
    match value.get("details") {
        Some(Value::String(text)) => failure = failure.because(text),
        Some(Value::Array(details)) => {
            for detail in details {
                let path = detail.get("path").and_then(Value::as_str).unwrap_or("/");
                let errors = detail.get("errors").and_then(Value::as_array).into_iter().flatten();
                for error in errors.filter_map(Value::as_str) {
                    failure = failure.because(format!("{path}: {error}"));
                }
            }
        }
        _ => {}
    }
    let locks = value.get("deployments").and_then(Value::as_array).into_iter().flatten();
    let locks: Vec<&str> = locks.filter_map(|lock| lock.get("id").and_then(Value::as_str)).collect();
    if !locks.is_empty() {
        failure.error = "another deployment is at work there".to_owned();
        failure = failure
            .because(format!("deployment {}", locks.join(", ")))
            .try_this("the same again with --force, which ends that deployment where it stands");
    }
    failure
}

/// A stream of lines under way.
#[derive(Debug)]
pub(crate) struct LineStream {
    master: String,
    body: Incoming,
    lines: Lines,
}

impl LineStream {
    /// The next line; `None` at the orderly end.
    pub(crate) async fn next(&mut self) -> Result<Option<String>, Failure> {
        loop {
            if let Some(line) = self.lines.next() {
                return Ok(Some(line));
            }
            match next_bytes(&self.master, &mut self.body).await? {
                Some(bytes) => self.lines.push(&bytes).map_err(|error| too_long(&self.master, &error))?,
                None if self.lines.is_cut() => return Err(cut_short(&self.master)),
                None => return Ok(None),
            }
        }
    }
}

/// A stream of events under way.
#[derive(Debug)]
pub(crate) struct EventStream {
    master: String,
    body: Incoming,
    events: Events,
}

impl EventStream {
    /// The next event; `None` when the master ends the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<SseEvent>, Failure> {
        loop {
            if let Some(event) = self.events.next() {
                return Ok(Some(event));
            }
            match next_bytes(&self.master, &mut self.body).await? {
                Some(bytes) => self.events.push(&bytes).map_err(|error| too_long(&self.master, &error))?,
                None => return Ok(None),
            }
        }
    }
}

async fn next_bytes(master: &str, body: &mut Incoming) -> Result<Option<Bytes>, Failure> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Err(error)) => return Err(broken(master, &error)),
            Some(Ok(frame)) => {
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
        }
    }
}

fn too_long(master: &str, error: &LineTooLong) -> Failure {
    Failure::new(Exit::Failed, format!("{master} sends nonsense")).caused_by(error).code(own_code::NONSENSE)
}

fn cut_short(master: &str) -> Failure {
    Failure::new(Exit::Unavailable, format!("the connection to {master} broke"))
        .because("it ended in the middle of a line")
        .code(own_code::UNREACHABLE)
}

/// Text for a path or a query, with what has a meaning there escaped.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' | b'@' => {
                out.push(char::from(byte))
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_completed_or_refused() {
        for (text, expect) in [
            ("n1:7070", Some("http://n1:7070")),
            ("http://n1:80/", Some("http://n1:80")),
            ("10.0.0.1", Some("http://10.0.0.1:7070")),
            ("[::1]:7070", Some("http://[::1]:7070")),
            ("https://n1:7070", None),
            ("http://n1:7070/x", None),
            ("a b", None),
        ] {
            assert_eq!(parse_address(text).ok().as_deref(), expect, "{text}");
        }
        assert_eq!(Client::new("a, b:1,", false).unwrap().masters, ["http://a:7070", "http://b:1"]);
        assert_eq!(Client::new(" , ", false).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn every_dialect_becomes_a_failure() {
        let of =
            |status, problem, body: &str| failure_of(StatusCode::from_u16(status).unwrap(), problem, body.as_bytes(), "/p");
        let problem = of(404, true, r#"{"error":"no such node","because":"n9","try":"drover nodes list","code":"D1004"}"#);
        assert_eq!(
            (problem.exit, problem.error.as_str(), problem.code.as_deref()),
            (Exit::NotFound, "no such node", Some("D1004"))
        );
        let marathon =
            of(422, false, r#"{"message":"Object is not valid","details":[{"path":"/cmd","errors":["must not be empty"]}]}"#);
        assert_eq!((marathon.exit, marathon.because), (Exit::Failed, vec!["/cmd: must not be empty".to_owned()]));
        let locked = of(409, false, r#"{"message":"App is locked","deployments":[{"id":"d1"}]}"#);
        assert_eq!(locked.because, ["deployment d1"]);
        assert!(locked.remedy.is_some());
        let chronos = of(400, false, r#"{"message":"no such job\n\tat org.x","status":"Bad Request"}"#);
        assert_eq!(chronos.error, "no such job");
        let text = of(502, false, "Could not determine the current leader\n");
        assert_eq!((text.exit, text.because), (Exit::Unavailable, vec!["Could not determine the current leader".to_owned()]));
        assert_eq!(of(403, false, "").exit, Exit::NotPermitted);
    }

    #[test]
    fn what_has_a_meaning_in_an_address_is_escaped() {
        assert_eq!(encode("ct:1:0:a b:"), "ct:1:0:a%20b:");
        assert_eq!(encode("/prod/web"), "/prod/web");
        assert_eq!(encode("a&b=ü"), "a%26b%3D%C3%BC");
    }
}
