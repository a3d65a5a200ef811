//! What lasts: calls whose client leaves, bodies read by another task, closes that lose nothing.

use tokio::net::{TcpListener, TcpStream};

use super::*;

const SHORT: Duration = Duration::from_millis(20);

async fn within<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(5), what).await.expect("in time")
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_though_another_task_read_its_body() {
    let mut client = Client::new();
    client.send("POST /elsewhere HTTP/1.1\r\nContent-Length: 2\r\n\r\nh").await;
    tokio::time::sleep(SHORT).await;
    client.send("i").await;
    tokio::time::sleep(SHORT).await;
    drop(client.io);
    assert_eq!(within(client.server).await.unwrap(), Served::Gone);
    // and when it leaves within the body
    let mut client = Client::new();
    client.send("POST /elsewhere HTTP/1.1\r\nContent-Length: 2\r\n\r\nh").await;
    tokio::time::sleep(SHORT).await;
    drop(client.io);
    assert_eq!(within(client.server).await.unwrap(), Served::Gone);
}

#[tokio::test]
async fn a_client_that_leaves_a_silent_answer_is_noticed() {
    let mut client = Client::new();
    client.send("GET /silent HTTP/1.1\r\n\r\n").await;
    assert!(client.until("\r\n\r\n").await.starts_with("HTTP/1.1 200 "));
    drop(client.io);
    assert_eq!(within(client.server).await.unwrap(), Served::Gone);
}

#[tokio::test]
async fn a_body_read_by_another_task_keeps_no_connection_open() {
    let mut client = Client::new();
    client.send("POST /elsewhere HTTP/1.1\r\nContent-Length: 2\r\n\r\nh").await;
    tokio::time::sleep(SHORT).await;
    // as when a connection is closed because it is no longer allowed
    client.server.abort();
    assert_eq!(within(client.io.read(&mut [0; 8])).await.unwrap(), 0);
}

#[tokio::test]
async fn what_asks_for_a_body_goes_out_whole() {
    let (mut io, server) = duplex(10);
    let (app, closing) = (Arc::<App>::default(), CancellationToken::new());
    let server = serving(server, &app, Duration::from_secs(5), &closing);
    let head = b"POST /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    within(io.write_all(head)).await.unwrap();
    tokio::time::sleep(SHORT).await;
    let mut seen = [0; 25];
    within(io.read_exact(&mut seen)).await.unwrap();
    assert_eq!(&seen, b"HTTP/1.1 100 Continue\r\n\r\n");
    within(io.write_all(b"hi")).await.unwrap();
    let mut first = [0; 12];
    within(io.read_exact(&mut first)).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    drop(io);
    within(server).await.unwrap();
}

#[tokio::test]
async fn a_close_does_not_take_the_answer_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for (says, drains) in [("Connection: close\r\n", false), ("", true)] {
        let mut io = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let (app, closing) = (Arc::<App>::default(), CancellationToken::new());
        if drains {
            // after the head, or it would be a resting connection
            let closing = closing.clone();
            tokio::spawn(async move {
                tokio::time::sleep(SHORT).await;
                closing.cancel();
            });
        }
        io.write_all(b"GET /big HTT").await.unwrap();
        let server = serving(server, &app, Duration::from_secs(5), &closing);
        tokio::time::sleep(SHORT * 3).await;
        // more than is taken while a request is answered: something stays in the kernel
        let sent = format!("P/1.1\r\n{says}\r\n{}", "x".repeat(60_000));
        io.write_all(sent.as_bytes()).await.unwrap();
        tokio::time::sleep(SHORT * 5).await;
        let mut seen = Vec::new();
        within(io.read_to_end(&mut seen)).await.expect("no reset");
        assert!(seen.ends_with(&[b'x'; 200_000]), "{} bytes, drains: {drains}", seen.len());
        drop(io);
        assert_eq!(within(server).await.unwrap(), Served::Done);
    }
}

#[tokio::test]
async fn an_empty_line_after_a_body_begins_no_request() {
    let mut client = Client::with(Duration::from_millis(200));
    client.send("POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi\r\n").await;
    client.until("POST /a hi").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    client.send("GET /b HTTP/1.1\r\nConnection: close\r\n\r\n").await;
    let (answer, served) = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("GET /b "), "{answer}");
    assert_eq!(served, Served::Done);
}
