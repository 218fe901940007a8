#!/bin/sh
# Generates the client from the OpenAPI document, and the sums by which a test
# that has no generator sees that the document or the client was changed alone.
set -eu
cd "$(dirname "$0")"
../../.ci/setup-tools oapi-codegen
../../.tools/bin/oapi-codegen -config codegen.yaml -o client_gen.go ../openapi/portal.json
sha256sum ../openapi/portal.json codegen.yaml overlay.yaml client_gen.go >generated.sum
