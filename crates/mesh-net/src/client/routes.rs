//! One method per route of [`mesh_core::api::ROUTES`].

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use mesh_core::api::{
    AddressRequest, AgentStatus, ApplyAnswer, ApplyRequest, BundleAnswer, CreateTokenAnswer,
    CreateTokenRequest, DeleteRequest, EnrolAnswer, EnrolRequest, InstanceHealth, IssueRequest,
    JoinServerAnswer, JoinServerRequest, LeafAnswer, NodeAnswer, PolicyList, PolicyText, ROUTES,
    Ready, RenewRequest, RevokeRequest, RouteId, RouteSpec, ServerInfo, ServerStatus,
    ServiceAnswer, ServiceSummary, SyncRequest, TokenInfo, TransferRequest, Written,
};
use mesh_core::catalog::{Instance, Node, NodePolicy};
use mesh_core::name::{NodeName, ServerName, ServiceName, TokenId};
use mesh_core::why::{WhyAnswer, WhyQuery};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use super::call::{Answer, Call, Client, ReadOptions, next_chunk};
use super::{ANSWER_BYTES_MAX, ClientError, SNAPSHOT_BYTES_MAX};

/// The methods share these errors.
macro_rules! methods {
    ($(
        $(#[$doc:meta])*
        $name:ident($($arg:ident: $ty:ty),*) -> $out:ty = $id:ident $segment:expr, $how:tt;
    )*) => {
        impl Client {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// [`ClientError`]; its [kind](ClientError::kind) says what to do.
            pub async fn $name(&self, $($arg: $ty),*) -> Result<$out, ClientError> {
                methods!(@ self $id $segment, $how)
            }
        )*}
    };
    (@ $self:ident $id:ident $segment:expr, (get $options:expr)) => {
        $self.get(RouteId::$id, &$segment, $options, None).await
    };
    (@ $self:ident $id:ident $segment:expr, (get $options:expr, $query:expr)) => {
        $self.get(RouteId::$id, &$segment, $options, $query).await
    };
    (@ $self:ident $id:ident $segment:expr, (ask)) => {
        Ok($self.get(RouteId::$id, &$segment, ReadOptions::default(), None).await?.value)
    };
    (@ $self:ident $id:ident $segment:expr, (send)) => {
        $self.write(RouteId::$id, &$segment, None).await
    };
    (@ $self:ident $id:ident $segment:expr, (send $body:expr)) => {
        $self.write(RouteId::$id, &$segment, Some(json($body)?)).await
    };
}

methods! {
    /// Whether the server that answers can serve.
    ready() -> Ready = Ready "", (ask);
    /// The API as an OpenAPI document.
    openapi() -> serde_json::Value = OpenApi "", (ask);
    /// The CA certificates to verify against.
    bundle(options: ReadOptions) -> Answer<BundleAnswer> = Bundle "", (get options);
    /// The state of the server that answers, and of the mesh.
    status() -> Answer<ServerStatus> = Status "", (get ReadOptions::default());
    /// The control servers.
    servers(options: ReadOptions) -> Answer<Vec<ServerInfo>> = Servers "", (get options);
    /// Joins the control cluster by a join token; over a client that pins the token's CA.
    join_server(request: &JoinServerRequest) -> JoinServerAnswer = JoinServer "", (send request);
    /// Hands leadership to another server.
    transfer(request: &TransferRequest) -> Written = TransferLeader "", (send request);
    /// Takes a server out.
    remove_server(server: &ServerName) -> Written = RemoveServer server.as_str(), (send);
    /// The tokens, without secrets.
    tokens(options: ReadOptions) -> Answer<Vec<TokenInfo>> = Tokens "", (get options);
    /// Makes a token; its secret is in this answer only.
    create_token(request: &CreateTokenRequest) -> CreateTokenAnswer
        = CreateToken "", (send request);
    /// Forgets a token.
    delete_token(token: &TokenId) -> Written = DeleteToken token.as_str(), (send);
    /// Enrols this node by a join token; over a client that pins the token's CA.
    enrol(request: &EnrolRequest) -> EnrolAnswer = Enrol "", (send request);
    /// Renews this node's certificate, also an expired one.
    renew(request: &RenewRequest) -> LeafAnswer = Renew "", (send request);
    /// Issues the certificate of a service that this node hosts.
    issue(request: &IssueRequest) -> LeafAnswer = Issue "", (send request);
    /// Registers the difference in what this node hosts.
    sync_instances(request: &SyncRequest) -> Written = SyncInstances "", (send request);
    /// What this node has registered.
    own_instances(options: ReadOptions) -> Answer<Vec<Instance>> = OwnInstances "", (get options);
    /// Says where this node's agent listens.
    set_address(request: &AddressRequest) -> Written = SetAddress "", (send request);
    /// The nodes.
    nodes(options: ReadOptions) -> Answer<Vec<Node>> = Nodes "", (get options);
    /// A node and its instances.
    node(node: &NodeName, options: ReadOptions) -> Answer<NodeAnswer>
        = Node node.as_str(), (get options);
    /// Sets what a node may host.
    set_node_policy(node: &NodeName, policy: &NodePolicy) -> Written
        = SetNodePolicy node.as_str(), (send policy);
    /// Forgets a node and denies its key.
    remove_node(node: &NodeName) -> Written = RemoveNode node.as_str(), (send);
    /// What the agents report: to any server, or to the one that answers if `stale`.
    agents(options: ReadOptions) -> Answer<Vec<AgentStatus>> = Agents "", (get options);
    /// The services.
    services(options: ReadOptions) -> Answer<Vec<ServiceSummary>> = Services "", (get options);
    /// A service: its policy, routes and instances.
    service(service: &ServiceName, options: ReadOptions) -> Answer<ServiceAnswer>
        = Service service.as_str(), (get options);
    /// The instances of a service with their health; only those that may be used if `passing`.
    health(service: &ServiceName, passing: bool, options: ReadOptions)
        -> Answer<Vec<InstanceHealth>>
        = Health service.as_str(), (get options, passing.then(|| ("passing", "true".to_owned())));
    /// The objects of policy in force.
    policy(options: ReadOptions) -> Answer<PolicyList> = Policy "", (get options);
    /// One object of policy as TOML, such as `service.orders`.
    policy_object(id: &str, options: ReadOptions) -> Answer<PolicyText>
        = PolicyObject "", (get options, Some(("id", id.to_owned())));
    /// Puts policy files in force.
    apply_policy(request: &ApplyRequest) -> ApplyAnswer = ApplyPolicy "", (send request);
    /// Removes policy files or objects.
    delete_policy(request: &DeleteRequest) -> ApplyAnswer = DeletePolicy "", (send request);
    /// Adds to the deny list.
    revoke(request: &RevokeRequest) -> Written = Revoke "", (send request);
}

impl Client {
    /// What would happen to a call, and why.
    ///
    /// # Errors
    /// [`ClientError`]; its [kind](ClientError::kind) says what to do.
    pub async fn why(&self, query: &WhyQuery) -> Result<Answer<WhyAnswer>, ClientError> {
        // Asks by POST, and changes nothing.
        let call = Call { safe: true, ..call(RouteId::Why, "", Some(json(query)?)) };
        self.read(call).await
    }

    /// Metrics of the server that answers, as OpenMetrics text.
    ///
    /// # Errors
    /// [`ClientError`]; its [kind](ClientError::kind) says what to do.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let call = call(RouteId::Metrics, "", None);
        let (_, address, body) = self.bytes(call, ANSWER_BYTES_MAX).await?;
        String::from_utf8(body.into())
            .map_err(|error| ClientError::Malformed { address, why: error.to_string() })
    }

    /// Writes a backup of the whole state to `sink`, and says its size in bytes.
    ///
    /// Each piece has the time of a call to come; what is in `sink` after an error is useless.
    ///
    /// # Errors
    /// [`ClientError::TooLarge`] beyond [`SNAPSHOT_BYTES_MAX`]; [`ClientError::Sink`]; and as
    /// other reads.
    pub async fn save_snapshot(
        &self, sink: &mut (impl AsyncWrite + Unpin),
    ) -> Result<u64, ClientError> {
        let deadline = Instant::now() + self.call_timeout;
        let mut reply = self.send(call(RouteId::SaveSnapshot, "", None), deadline).await?;
        let mut written = 0;
        loop {
            let next = tokio::time::timeout(self.call_timeout, next_chunk(&mut reply)).await;
            let next = next.unwrap_or_else(|_| {
                let (address, after) = (reply.address.clone(), self.call_timeout);
                Err(ClientError::Timeout { address, after })
            })?;
            let Some(chunk) = next else { break };
            written += chunk.len();
            if written > SNAPSHOT_BYTES_MAX {
                let (address, max) = (reply.address, SNAPSHOT_BYTES_MAX);
                return Err(ClientError::TooLarge { address, max });
            }
            sink.write_all(&chunk).await.map_err(ClientError::Sink)?;
        }
        sink.flush().await.map_err(ClientError::Sink)?;
        Ok(written as u64)
    }

    /// Replaces the whole state by a backup, in a new epoch.
    ///
    /// # Errors
    /// [`ClientError`]; its [kind](ClientError::kind) says what to do.
    pub async fn restore_snapshot(&self, snapshot: Bytes) -> Result<Written, ClientError> {
        let body = ("application/octet-stream", snapshot);
        let slow = self.with_timeout(self.call_timeout.max(Duration::from_secs(120)));
        slow.write(RouteId::RestoreSnapshot, "", Some(body)).await
    }

    async fn get<T: DeserializeOwned>(
        &self, id: RouteId, segment: &str, options: ReadOptions,
        query: Option<(&'static str, String)>,
    ) -> Result<Answer<T>, ClientError> {
        let (mut queries, wait) = Call::query_of(&options);
        queries.extend(query);
        self.read(Call { query: queries, wait, ..call(id, segment, None) }).await
    }

    async fn write<T: DeserializeOwned>(
        &self, id: RouteId, segment: &str, body: Option<(&'static str, Bytes)>,
    ) -> Result<T, ClientError> {
        Ok(self.read(call(id, segment, body)).await?.value)
    }
}

fn spec(id: RouteId) -> &'static RouteSpec {
    #[expect(clippy::expect_used, reason = "the macro that makes RouteId makes ROUTES")]
    ROUTES.iter().find(|route| route.id == id).expect("every id has a route")
}

/// The path of a route, with `segment` in place of its `{name}`. Names need no escaping.
pub(super) fn path(id: RouteId, segment: &str) -> String {
    let path = spec(id).path;
    match (path.find('{'), path.find('}')) {
        (Some(from), Some(to)) => format!("{}{segment}{}", &path[..from], &path[to + 1..]),
        _ => path.to_owned(),
    }
}

fn call(id: RouteId, segment: &str, body: Option<(&'static str, Bytes)>) -> Call {
    let method = Method::from_bytes(spec(id).method.as_bytes()).unwrap_or_default();
    let (safe, path) = (method == Method::GET, path(id, segment));
    Call { method, path, query: Vec::new(), body, safe, wait: Duration::ZERO }
}

fn json(body: &impl Serialize) -> Result<(&'static str, Bytes), ClientError> {
    let bytes = serde_json::to_vec(body).map_err(ClientError::Encode)?;
    Ok(("application/json", bytes.into()))
}
