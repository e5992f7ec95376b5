//! The code on every page of the book and of the project's front pages, compiled and run as doctests.

macro_rules! page {
    ($name:ident, $text:expr) => {
        #[doc = $text]
        mod $name {}
    };
}

page!(readme, include_str!("../../README.md"));
page!(architecture, include_str!("../../ARCHITECTURE.md"));
page!(introduction, include_str!("../../docs/introduction.md"));
page!(first_group, include_str!("../../docs/tutorial/first-group.md"));
page!(replicated_store, include_str!("../../docs/tutorial/replicated-store.md"));
page!(guarantees, include_str!("../../docs/reference/guarantees.md"));
page!(cancel_safety, include_str!("../../docs/reference/cancel-safety.md"));
page!(protocol, include_str!("../../docs/reference/protocol.md"));
page!(rules, include_str!("../../docs/reference/rules.md"));
page!(wire, include_str!("../../docs/reference/wire.md"));
page!(compatibility, include_str!("../../docs/reference/compatibility.md"));
page!(replicated_service, include_str!("../../docs/how-to/replicated-service.md"));
page!(calls, include_str!("../../docs/how-to/calls.md"));
page!(operating, include_str!("../../docs/how-to/operating.md"));
page!(deploying, include_str!("../../docs/how-to/deploying.md"));
page!(health, include_str!("../../docs/how-to/health.md"));
page!(health_reference, include_str!("../../docs/reference/health.md"));
page!(data, include_str!("../../docs/how-to/data.md"));
page!(certificates, include_str!("../../docs/how-to/certificates.md"));
page!(data_reference, include_str!("../../docs/reference/data.md"));
page!(admin_endpoint, include_str!("../../docs/how-to/admin-endpoint.md"));
page!(status, include_str!("../../docs/reference/status.md"));
page!(metrics, include_str!("../../docs/reference/metrics.md"));
page!(testing_your_app, include_str!("../../docs/how-to/testing-your-app.md"));
page!(performance, include_str!("../../docs/explanation/performance.md"));
page!(decisions, include_str!("../../docs/explanation/decisions.md"));
