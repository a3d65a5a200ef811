//! The client against applications that answer in plain bytes: what they see, and what of their
//! answers may be taken for another's.

use http::HeaderMap;
use tokio::net::{TcpListener, TcpStream};

use super::super::{Client, SendError, Sent};
use super::*;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

struct World {
    client: Arc<Client>,
    listener: TcpListener,
}

impl World {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { client: Arc::default(), listener }
    }

    fn send(
        &self, method: &str, fields: HeaderMap, body: TestBody,
    ) -> impl Future<Output = Result<Response<RecvBody>, SendError>> + 'static {
        let (client, address) = (Arc::clone(&self.client), self.listener.local_addr().unwrap());
        let mut request = Request::new(body);
        *request.method_mut() = method.parse().unwrap();
        *request.headers_mut() = fields;
        async move {
            within(client.send(address, request)).await.map(|sent| match sent {
                Sent::Answered(answer) => answer,
                Sent::Switched(_) => panic!("nobody asked for it"),
            })
        }
    }

    fn get(&self) -> impl Future<Output = Result<Response<RecvBody>, SendError>> + 'static {
        self.send("GET", HeaderMap::new(), full(""))
    }

    /// The next connection, whose first request is answered with `answer`.
    async fn answers(&self, answer: &str) -> TcpStream {
        let (mut stream, _) = within(self.listener.accept()).await.unwrap();
        head(&mut stream).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream
    }

    /// The next request goes over a connection of its own.
    async fn is_asked_anew(&self) {
        let (answer, _app) = tokio::join!(self.get(), self.answers(OK));
        assert_eq!(text(answer).await, "200 ok");
    }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(5), what).await.expect("in time")
}

async fn head(stream: &mut TcpStream) -> String {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        seen.push(within(stream.read_u8()).await.unwrap());
    }
    String::from_utf8(seen).unwrap()
}

async fn text(answer: Result<Response<RecvBody>, SendError>) -> String {
    let answer = answer.unwrap();
    let status = answer.status().as_u16();
    let body = within(answer.into_body().collect()).await.unwrap().to_bytes();
    format!("{status} {}", String::from_utf8_lossy(&body))
}

#[tokio::test]
async fn b_smug_no_answer_is_taken_for_that_of_another_request() {
    let many = |n: usize| "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(n);
    let evil = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    let ten = || "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n0123456789".to_owned();
    let bare = |status: &str| format!("HTTP/1.1 {status}\r\n\r\n");
    let cases: [(&str, String, Option<&str>); 9] = [
        ("preliminary answers", many(8) + OK, Some("200 ok")),
        ("too many preliminary answers", many(9), None),
        (
            "another protocol",
            bare("101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket"),
            None,
        ),
        ("bytes behind it", OK.to_owned() + evil, Some("200 ok")),
        ("longer than its length", ten() + "x", Some("200 0123456789")),
        ("a body of none", bare("204 No Content\r\ncontent-length: 45"), Some("204 ")),
        ("chunks of none", bare("204 No Content\r\ntransfer-encoding: chunked"), Some("204 ")),
        (
            "the end of its connection",
            bare("200 OK\r\nconnection: close\r\ncontent-length: 0"),
            Some("200 "),
        ),
        ("no length", bare("200 OK"), Some("200 ")),
    ];
    for (name, first, want) in cases {
        let world = World::new().await;
        let (answer, app) = tokio::join!(world.get(), world.answers(&first));
        // an answer without a length ends with its connection
        let mut app = Some(app).filter(|_| name != "no length");
        match want {
            Some(want) => assert_eq!(text(answer).await, want, "{name}"),
            None => assert!(matches!(answer, Err(SendError::Answer(_))), "{name}: {answer:?}"),
        }
        if name == "preliminary answers" {
            let mut app = app.unwrap();
            let again = async {
                head(&mut app).await;
                app.write_all(OK.as_bytes()).await.unwrap();
            };
            let (answer, ()) = tokio::join!(world.get(), again);
            assert_eq!(text(answer).await, "200 ok", "a good connection is kept");
            continue;
        }
        // and then comes what nobody asked for
        let next = world.get();
        if let Some(app) = &mut app {
            drop(app.write_all(evil.as_bytes()).await);
        }
        let (answer, _new) = tokio::join!(next, world.answers(OK));
        assert_eq!(text(answer).await, "200 ok", "{name}");
    }
}

#[tokio::test]
async fn a_kept_connection_that_breaks_is_replaced_for_what_may_be_repeated() {
    for (method, body, repeated) in
        [("GET", "", true), ("DELETE", "", true), ("POST", "", false), ("PUT", "x", false)]
    {
        let world = World::new().await;
        let (answer, app) = tokio::join!(world.get(), world.answers(OK));
        assert_eq!(text(answer).await, "200 ok");
        // a reset that is not noticed before the request is written
        app.set_zero_linger().unwrap();
        drop(app);
        let sending = world.send(method, HeaderMap::new(), full(body));
        if repeated {
            let (answer, _app) = tokio::join!(sending, world.answers(OK));
            assert_eq!(text(answer).await, "200 ok", "{method}");
            continue;
        }
        let outcome = sending.await;
        assert!(matches!(outcome, Err(SendError::Closed)), "{method}: {outcome:?}");
        let none = timeout(Duration::from_millis(50), world.listener.accept()).await;
        assert!(none.is_err(), "{method} was sent again");
    }
}

#[tokio::test]
async fn a_request_whose_body_was_not_begun_is_sent_again() {
    let world = World::new().await;
    let (answer, app) = tokio::join!(world.get(), world.answers(OK));
    assert_eq!(text(answer).await, "200 ok");
    app.set_zero_linger().unwrap();
    drop(app);
    // its first byte comes once the connection was seen to be closed
    let (give, body) = tokio::sync::oneshot::channel::<Bytes>();
    let body = futures_util::stream::once(async move { Ok(Frame::data(body.await.unwrap())) });
    let sending =
        world.send("POST", HeaderMap::new(), BodyExt::boxed(StreamBody::new(Box::pin(body))));
    let app = async {
        let (mut stream, _) = within(world.listener.accept()).await.unwrap();
        head(&mut stream).await;
        give.send(Bytes::from("hi")).unwrap();
        let mut chunks = [0; 12];
        within(stream.read_exact(&mut chunks)).await.unwrap();
        stream.write_all(OK.as_bytes()).await.unwrap();
        (stream, chunks)
    };
    let (answer, (_app, chunks)) = tokio::join!(sending, app);
    assert_eq!((text(answer).await.as_str(), &chunks), ("200 ok", b"2\r\nhi\r\n0\r\n\r\n"));
}

#[tokio::test]
async fn a_request_whose_body_was_begun_is_not_sent_again() {
    let world = World::new().await;
    let (answer, app) = tokio::join!(world.get(), world.answers(OK));
    assert_eq!(text(answer).await, "200 ok");
    app.set_zero_linger().unwrap();
    drop(app);
    let first = futures_util::stream::iter([Ok(Frame::data(Bytes::from("h")))]);
    let never = futures_util::stream::pending();
    let body = BodyExt::boxed(StreamBody::new(futures_util::StreamExt::chain(first, never)));
    let outcome = world.send("PUT", HeaderMap::new(), body).await;
    assert!(matches!(outcome, Err(SendError::Closed)), "{outcome:?}");
    let none = timeout(Duration::from_millis(50), world.listener.accept()).await;
    assert!(none.is_err(), "a part of it was sent again");
}

#[tokio::test]
async fn an_answer_during_the_upload_ends_both() {
    let world = World::new().await;
    let open = || BodyExt::boxed(StreamBody::new(futures_util::stream::pending()));
    let (answer, mut app) =
        tokio::join!(world.send("POST", HeaderMap::new(), open()), world.answers(OK));
    assert_eq!(text(answer).await, "200 ok");
    assert_eq!(within(app.read(&mut [0; 8])).await.unwrap(), 0, "the rest of it never comes");
    world.is_asked_anew().await;
}

#[tokio::test]
async fn b_smug_a_request_has_one_framing_and_clean_trailers() {
    let world = World::new().await;
    let fields = |pairs: &[(&'static str, &'static str)]| {
        let mut fields = HeaderMap::new();
        for (name, value) in pairs {
            fields.append(*name, value.parse().unwrap());
        }
        fields
    };
    let length = "content-length";
    let coding = "transfer-encoding";
    type Case<'a> = (&'a str, HeaderMap, &'a str, &'a [&'a str]);
    let cases: [Case<'_>; 6] = [
        ("twice", fields(&[(length, "2"), (length, "9")]), "hi", &["content-length: 2"]),
        ("zeros", fields(&[(length, "0002")]), "hi", &["content-length: 2"]),
        ("both", fields(&[(length, "2"), (coding, "chunked")]), "hi", &["content-length: 2"]),
        ("coding", fields(&[(coding, "gzip, chunked")]), "hi", &["transfer-encoding: chunked"]),
        ("signed", fields(&[(length, "+2")]), "hi", &["transfer-encoding: chunked"]),
        ("none", fields(&[]), "", &["content-length: 0"]),
    ];
    for (name, fields, body, want) in cases {
        let app = async {
            let (mut stream, _) = within(world.listener.accept()).await.unwrap();
            let head = head(&mut stream).await;
            stream.write_all(b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            head
        };
        let (_answer, head) = tokio::join!(world.send("POST", fields, full(body)), app);
        let framing = head.lines().filter(|l| l.starts_with(length) || l.starts_with(coding));
        assert_eq!(framing.collect::<Vec<_>>(), want, "{name}");
    }
    let trailers = fields(&[("x-sum", "7"), ("x-mesh-caller", "root"), (length, "9")]);
    let frames = [Ok(Frame::data(Bytes::from("hi"))), Ok(Frame::trailers(trailers))];
    let body = BodyExt::boxed(StreamBody::new(futures_util::stream::iter(frames)));
    let app = async {
        let (mut stream, _) = within(world.listener.accept()).await.unwrap();
        head(&mut stream).await;
        let body = head(&mut stream).await;
        stream.write_all(OK.as_bytes()).await.unwrap();
        body
    };
    let (_answer, body) = tokio::join!(world.send("POST", HeaderMap::new(), body), app);
    assert_eq!(body, "2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n");
}
