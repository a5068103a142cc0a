from __future__ import annotations

import pytest

from frontend.routing.routes import Engine, parse_routes


@pytest.mark.parametrize(
    ("text", "routes"),
    [
        ("a=predictor://127.0.0.1:51002", {"a": "127.0.0.1:51002"}),
        ("a=predictor://predictor:1,b=predictor://other:2", {"a": "predictor:1", "b": "other:2"}),
        (" a=predictor://h:1 ,\n b=predictor://h:1, ", {"a": "h:1", "b": "h:1"}),
        ("a=predictor://dns:///predictor.svc:51001", {"a": "dns:///predictor.svc:51001"}),
        ("a=predictor://[::1]:51001", {"a": "[::1]:51001"}),
        ("org/intent:v1=predictor://h:1", {"org/intent:v1": "h:1"}),
        ("a=predictor://10.0.0.2:1,10.0.0.3:1, 10.0.0.4:2", {"a": "ipv4:10.0.0.2:1,10.0.0.3:1,10.0.0.4:2"}),
        ("a=predictor://[::1]:1,[::2]:1", {"a": "ipv6:[::1]:1,[::2]:1"}),
        ("a=predictor://1.1.1.1:1,1.1.1.2:1,b=predictor://h:1", {"a": "ipv4:1.1.1.1:1,1.1.1.2:1", "b": "h:1"}),
    ],
    ids=["one", "two", "spaces", "dns", "ipv6", "algorithm-with-signs", "replicas", "ipv6-replicas", "both"],
)
def test_routes_are_read_as_people_write_them(text: str, routes: dict[str, str]) -> None:
    assert parse_routes(text) == {name: Engine("predictor", address) for name, address in routes.items()}


@pytest.mark.parametrize(
    ("text", "engine"),
    [
        ("a=torchserve://h:7070", Engine("torchserve", "h:7070", "h:7071")),
        ("a=torchserve://[::1]:7070", Engine("torchserve", "[::1]:7070", "[::1]:7071")),
        ("a=torchserve://dns:///h:7070", Engine("torchserve", "dns:///h:7070", "dns:///h:7071")),
        ("a=torchserve://h:1?management=i:2", Engine("torchserve", "h:1", "i:2")),
        ("a=open-inference://h:8001", Engine("open-inference", "h:8001")),
        ("a=open-inference://10.0.0.2:1,10.0.0.3:1", Engine("open-inference", "ipv4:10.0.0.2:1,10.0.0.3:1")),
    ],
)
def test_engines_of_others_are_routed_to(text: str, engine: Engine) -> None:
    assert parse_routes(f"{text},b=predictor://h:1") == {"a": engine, "b": Engine("predictor", "h:1")}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no route"),
        (" , ", "no route"),
        ("a", "'a' must be written as algorithm=kind://host:port"),
        ("a=h:1", "must be written as"),
        ("=predictor://h:1", "must be written as"),
        ("a=predictor://h:1 b=predictor://h:1", "must be written as"),
        ("a=http://h:1", "must be one of: predictor"),
        ("a=predictor://h", "must be host:port"),
        ("a=predictor://h:", "must be host:port"),
        ("a=predictor://h:port", "must be host:port"),
        ("a=predictor://h:123456", "must be host:port"),
        ("a=predictor://:1", "must be host:port"),
        ("a=predictor://h:1/path", "must be host:port"),
        ("a=predictor://h:1,a=predictor://i:2", "'a' has two routes; keep one"),
        ("a=predictor://h:1,b=broken", "'b=broken'"),
        ("a=predictor://127.0.0.1:1,b", "'b': the address must be host:port"),
        ("a=predictor://h:1,i:1", "'h:1': several addresses must be IP addresses"),
        ("a=predictor://127.0.0.1:1,localhost:1", "'localhost:1': several addresses must be IP addresses"),
        ("a=predictor://127.0.0.1:1,dns:///h:1", "several addresses must be IP addresses"),
        ("a=predictor://127.0.0.1:1,[::1]:1", "must be all IPv4 or all IPv6"),
        ("a=predictor://h:1?management=h:2", "the kind predictor has no options"),
        ("a=torchserve://h:1?management=h", "must be written as management=host:port"),
        ("a=torchserve://h:1?workers=2", "must be written as management=host:port"),
        ("a=torchserve://127.0.0.1:1,127.0.0.2:1", "registered with one TorchServe"),
    ],
)
def test_a_route_that_is_written_wrongly_is_named(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_routes(text)
