//! This API as an OpenAPI 3.1 document, from the table of routes.

use std::sync::OnceLock;

use mesh_core::api::{Body, ROUTES, RouteSpec};
use mesh_core::trust::Permission;
use serde_json::{Map, Value, json};

use super::request::known;
use super::schema;

/// The document as text, made once.
pub(super) fn text() -> String {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| document().to_string()).clone()
}

/// The document.
fn document() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            path.insert(route.method.to_lowercase(), operation(route));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "mesh control API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Agents show a client certificate, people a bearer token.",
        },
        "paths": paths,
        "components": {
            "schemas": schema::schemas(),
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer" },
                "certificate": { "type": "mutualTLS" },
            },
        },
    })
}

fn operation(route: &RouteSpec) -> Value {
    let mut operation = json!({
        "operationId": format!("{:?}", route.id),
        "summary": route.summary,
        "x-mesh-permission": route.permission,
        "security": security(route.permission),
        "parameters": parameters(route),
        "responses": {
            "200": answer(route),
            "default": {
                "description": "What was wrong",
                "content": content("application/json", schema::body("ApiError")),
            },
        },
    });
    let request = match route.request {
        Body::None => return operation,
        Body::Json(name) => content("application/json", schema::body(name)),
        Body::Binary | Body::Stream => content(super::BINARY, binary()),
    };
    operation["requestBody"] = json!({ "required": true, "content": request });
    operation
}

fn answer(route: &RouteSpec) -> Value {
    let content = match route.response {
        Body::None => json!({}),
        Body::Json(name) => content("application/json", schema::body(name)),
        Body::Binary if route.permission == Permission::Metrics => {
            content("application/openmetrics-text", json!({ "type": "string" }))
        }
        Body::Binary | Body::Stream => content(super::BINARY, binary()),
    };
    json!({ "description": route.summary, "content": content })
}

fn content(kind: &str, schema: Value) -> Value {
    json!({ kind: { "schema": schema } })
}

fn binary() -> Value {
    json!({ "type": "string", "contentEncoding": "binary" })
}

fn security(permission: Permission) -> Value {
    match permission {
        Permission::Public => json!([]),
        Permission::Read | Permission::Metrics => json!([{ "token": [] }, { "certificate": [] }]),
        Permission::WritePolicy | Permission::Admin => json!([{ "token": [] }]),
        Permission::Node | Permission::Renew => json!([{ "certificate": [] }]),
    }
}

fn parameters(route: &RouteSpec) -> Vec<Value> {
    let segment = route.path.split('/').filter_map(|part| {
        let name = part.strip_prefix('{')?.strip_suffix('}')?;
        let schema = schema::body("Name");
        Some(json!({ "name": name, "in": "path", "required": true, "schema": schema }))
    });
    let queries = known(route).into_iter().map(|name| {
        let schema = match name {
            "index" => schema::body("Revision"),
            "wait" | "id" => json!({ "type": "string" }),
            _ => json!({ "type": "boolean" }),
        };
        let required = name == "id";
        json!({ "name": name, "in": "query", "required": required, "schema": schema })
    });
    segment.chain(queries).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described_and_every_name_has_a_schema() {
        let document = document();
        for route in ROUTES {
            let method = route.method.to_lowercase();
            let operation = &document["paths"][route.path][&method];
            assert_eq!(operation["operationId"], format!("{:?}", route.id));
            assert!(operation["x-mesh-permission"].is_string(), "{}", route.path);
        }
        let schemas = schema::schemas();
        let mut names = Vec::new();
        references(&document, &mut names);
        for name in names {
            assert!(schemas.contains_key(&name), "no schema {name}");
        }
    }

    fn references(value: &Value, names: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                if let Some(name) = fields.get("$ref").and_then(Value::as_str) {
                    names.extend(name.rsplit('/').next().map(str::to_owned));
                }
                fields.values().for_each(|field| references(field, names));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, names)),
            _ => {}
        }
    }
}
