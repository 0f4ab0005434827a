//! HTTP/JSON: the controller's questions and answers over a unix socket or loopback TCP.
//!
//! This crate knows the controller and no driver. The same [`router`] is served by a daemon ([`serve()`]) and called
//! in-process by a command without one. [`types`] has the JSON of both ends. Start reading at [`routes`](mod@routes).
//!
//! | method | path | asks | answers |
//! |---|---|---|---|
//! | POST | `/v1alpha1/apply` | [`ApplyRequest`](types::ApplyRequest) | [`ApplyReport`](types::ApplyReport), once it is installed and read back |
//! | POST | `/v1alpha1/delete` | [`DeleteRequest`](types::DeleteRequest) | [`ApplyReport`](types::ApplyReport) |
//! | GET | `/v1alpha1/resources` | | all: [`ResourceReport`](types::ResourceReport)s |
//! | GET | `/v1alpha1/resources/{kind}` | any name of a kind: `chain`, `chains`, `sf` | those of one kind |
//! | GET | `/v1alpha1/resources/{kind}/{name}` | | one [`ResourceReport`](types::ResourceReport) |
//! | GET | `/v1alpha1/status` | | [`StatusReport`](types::StatusReport) |
//! | GET | `/v1alpha1/counters` | | [`CountersReport`](types::CountersReport) |
//! | GET | `/v1alpha1/functions` | | [`FunctionsReport`](types::FunctionsReport): what went in, what came out |
//! | GET | `/v1alpha1/events` | `?after=ID`: later ones alone; `?follow=true`: goes on | [`EventReport`](types::EventReport)s, one JSON a line |
//! | POST | `/v1alpha1/trace` | [`Packet`](types::Packet), sent by the node that has its source address | [`Trace`](types::Trace) |
//! | GET | `/v1alpha1/verify` | `?observed=true`: what is installed; `?tenant=NAME`: its chains alone | [`VerifyReport`](types::VerifyReport) |
//! | GET | `/v1alpha1/verify/network` | the same | [`VerifiedNetwork`](types::VerifiedNetwork): the report, and the network of which it is |
//! | GET | `/v1alpha1/explain/{chain}` | | [`Explanation`](types::Explanation) |
//! | GET | `/metrics` | | all counters and the controller's state, in the text of OpenMetrics 1.0 |
//!
//! Whatever is no success is answered by an [`ErrorReport`](types::ErrorReport):
//!
//! | status | when | touched |
//! |---|---|---|
//! | 400 | the request is no JSON, or not of the form above | nothing |
//! | 403 | over TCP: the `Host` header names neither an address nor this machine (see [`Listener::tcp`]) | nothing |
//! | 404 | no such path, kind or resource | nothing |
//! | 405 | no such method on this path | nothing |
//! | 409 | others need what is to be deleted (`diagnostics` say which); an element cannot take the change; chains would not hold any more what they promise (`violations`, and in `undecided` what may not hold; see [`ApplyRequest::allow`](types::ApplyRequest::allow)) | nothing |
//! | 413 | the body is larger than [`BODY_LIMIT`] | nothing |
//! | 415 | the body is not said to be `application/json` | nothing |
//! | 422 | the resources are not valid (`diagnostics` say where), or cannot be rendered | nothing |
//! | 500 | it failed on the way, and the message says whether all was rolled back; or what becomes of it cannot be found out | see the message |
//! | 503 | an element that must change cannot be reached, or the controller is stopping | nothing |

mod caller;
mod error;
mod host;
mod metrics;
pub mod routes;
mod serve;
pub mod types;

pub use routes::{BODY_LIMIT, router};
pub use serve::{ListenError, Listener, serve};
