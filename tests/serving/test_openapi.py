"""The OpenAPI document against the server: whatever it allows is answered as it says, and nothing ends the server."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings

schemathesis = pytest.importorskip("schemathesis")
pytest.importorskip("schemathesis.specs.openapi.checks")  # registers its checks

CHECKS = schemathesis.checks.CHECKS.get_by_names(
    ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"]
)
MODES = schemathesis.GenerationMode


@pytest.mark.parametrize(
    ("path", "method", "mode"),
    [
        *[(path, "POST", mode) for path in ("/v1/predict", "/v1/explain") for mode in (MODES.POSITIVE, MODES.NEGATIVE)],
        *[(path, "GET", MODES.POSITIVE) for path in ("/v1/model", "/healthz", "/readyz", "/metrics")],
    ],
)
def test_what_is_asked_is_answered_as_the_document_says(live, path, method, mode):
    operation = schemathesis.openapi.from_dict(live.app.openapi())[path][method]

    @settings(
        max_examples=20,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case):
        response = case.call(base_url=live.url, timeout=60)
        case.validate_response(response, checks=CHECKS)

    ask()


def test_the_document_tells_every_route_that_is_for_programs(live):
    assert set(live.app.openapi()["paths"]) == {
        "/v1/predict",
        "/v1/explain",
        "/v1/model",
        "/healthz",
        "/readyz",
        "/metrics",
    }
