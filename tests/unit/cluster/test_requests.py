"""What a request to an object may say and do, in the API server's words: revisions, UIDs, metadata that is
the server's, finalizers, creation by PUT, the two halves of an object."""

from __future__ import annotations

import pytest

from nsk8s.api.types import Obj
from nsk8s.cluster.patch import Json
from nsk8s.errors import ApiError
from tests.unit.cluster.worlds import NOW, World, deployment, pod

CHANGED = "the object has been modified; please apply your changes to the latest version and try again"


def config_map(**meta: Json) -> Obj:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", **meta}, "data": {"a": "1"}}


def lease(**meta: Json) -> Obj:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "l", **meta},
        "spec": {"holderIdentity": "me"},
    }


def with_meta(obj: Obj, **meta: Json) -> Obj:
    return {**obj, "metadata": {**obj["metadata"], **meta}}


def without(obj: Obj, *fields: str) -> Obj:
    return {**obj, "metadata": {k: v for k, v in obj["metadata"].items() if k not in fields}}


def refusal(error: ApiError) -> tuple[int, str, str]:
    return error.code, error.reason, error.message


@pytest.mark.parametrize("revision", ["7", 7])
def test_a_new_object_has_no_revision_yet(revision: Json) -> None:
    with pytest.raises(ApiError) as refused:
        World().registry.create(config_map(resourceVersion=revision))
    message = "resourceVersion should not be set on objects to be created"
    assert refusal(refused.value) == (500, "", message)


@pytest.mark.parametrize("revision", ["", "0", None])
def test_a_revision_that_is_none_is_let_pass(revision: Json) -> None:
    made = World().registry.create(config_map(resourceVersion=revision))
    assert int(made["metadata"]["resourceVersion"]) > 0


def test_what_is_new_gets_its_identity_from_the_server() -> None:
    theirs = {"uid": "mine", "creationTimestamp": "2000-01-01T00:00:00Z", "generation": 9}
    ending = {"deletionTimestamp": "2000-01-01T00:00:00Z", "deletionGracePeriodSeconds": 3, "selfLink": "/x"}
    made = World().registry.create(config_map(**theirs, **ending))
    assert made["metadata"] == {
        "name": "c",
        "namespace": "default",
        "uid": made["metadata"]["uid"],
        "creationTimestamp": NOW,
        "resourceVersion": made["metadata"]["resourceVersion"],
    }
    assert made["metadata"]["uid"] != "mine"


def test_what_is_being_deleted_is_in_the_way() -> None:
    world = World()
    world.registry.create(config_map(finalizers=["a/b"]))
    world.registry.delete("configmaps", "default", "c")
    with pytest.raises(ApiError) as refused:
        world.registry.create(config_map())
    message = 'object is being deleted: configmaps "c" already exists'
    assert refusal(refused.value) == (409, "AlreadyExists", message)


# --- replacing --------------------------------------------------------------------------------------


def test_what_is_not_there_cannot_be_replaced() -> None:
    with pytest.raises(ApiError) as refused:
        World().registry.update(config_map())
    assert refusal(refused.value) == (404, "NotFound", 'configmaps "c" not found')


def test_some_kinds_are_created_by_a_put() -> None:
    world = World()
    assert world.registry.update(lease())["spec"] == {"holderIdentity": "me"}
    assert world.registry.update(
        {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "e"}}, manager="me"
    )["metadata"]["uid"]


def test_an_old_revision_is_a_conflict_and_none_is_unconditional() -> None:
    world = World()
    made = world.registry.create(config_map())
    new = world.registry.update({**without(made, "resourceVersion"), "data": {"a": "2"}})
    assert new["metadata"]["resourceVersion"] != made["metadata"]["resourceVersion"]
    with pytest.raises(ApiError) as refused:
        world.registry.update({**made, "data": {"a": "3"}})
    message = f'Operation cannot be fulfilled on configmaps "c": {CHANGED}'
    assert refusal(refused.value) == (409, "Conflict", message)


def test_some_kinds_are_replaced_by_who_knows_their_revision() -> None:
    world = World()
    made = world.registry.create(lease())
    with pytest.raises(ApiError) as refused:
        world.registry.update(without(made, "resourceVersion"))
    assert refusal(refused.value) == (
        422,
        "Invalid",
        'leases.coordination.k8s.io "l" is invalid: metadata.resourceVersion: Invalid value: 0x0: must be '
        "specified for an update",
    )
    world.registry.update({**made, "spec": {"holderIdentity": "you"}})


def test_another_object_of_the_same_name_is_not_meant() -> None:
    world = World()
    made = world.registry.create(config_map())
    with pytest.raises(ApiError) as refused:
        world.registry.update(with_meta(made, uid="other"))
    assert refusal(refused.value) == (
        409,
        "Conflict",
        'Operation cannot be fulfilled on configmaps "c": StorageError: invalid object, Code: 4, Key: '
        "/registry/configmaps/default/c, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in "
        f"precondition: other, UID in object meta: {made['metadata']['uid']}",
    )


@pytest.mark.parametrize(
    ("meta", "what"),
    [
        ({"uid": "x"}, 'metadata.uid: Invalid value: "x": field is immutable'),
        (
            {"deletionTimestamp": "2030-01-01T00:00:00Z"},
            'metadata.deletionTimestamp: Invalid value: "2030-01-01T00:00:00Z": field is immutable',
        ),
        (
            {"deletionGracePeriodSeconds": 5},
            "metadata.deletionGracePeriodSeconds: Invalid value: 5: field is immutable",
        ),
    ],
)
def test_metadata_that_no_patch_may_change(meta: Obj, what: str) -> None:
    world = World()
    world.registry.create(config_map())
    with pytest.raises(ApiError) as refused:
        world.registry.patch("configmaps", "default", "c", {"metadata": meta}, "merge")
    assert refusal(refused.value) == (422, "Invalid", f'ConfigMap "c" is invalid: {what}')


@pytest.mark.parametrize(
    "meta",
    [
        {"creationTimestamp": "2000-01-01T00:00:00Z"},
        {"creationTimestamp": None},
        {"generation": 77},
        {"selfLink": "/x"},
        {"uid": None},
    ],
)
def test_metadata_that_is_put_right(meta: Obj) -> None:
    world = World()
    made = world.registry.create(config_map())
    assert world.registry.patch("configmaps", "default", "c", {"metadata": meta}, "merge") is made


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        ({"name": "x"}, "the name of the object (x) does not match the name on the URL (c)"),
        (
            {"name": None},
            "the name of the object (c based on URL) was undeterminable: name must be provided",
        ),
        (
            {"namespace": "x"},
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
    ],
)
def test_a_patch_cannot_move_an_object(meta: Obj, words: str) -> None:
    world = World()
    world.registry.create(config_map())
    with pytest.raises(ApiError) as refused:
        world.registry.patch("configmaps", "default", "c", {"metadata": meta}, "merge")
    assert refusal(refused.value) == (400, "BadRequest", words)


# --- what is ending ---------------------------------------------------------------------------------


@pytest.fixture
def ending() -> World:
    world = World()
    world.registry.create(config_map(finalizers=["a/b", "c/d"]))
    world.registry.delete("configmaps", "default", "c")
    return world


def finalized(world: World, *finalizers: str, **data: str) -> Obj:
    change: Obj = {"metadata": {"finalizers": list(finalizers)}, "data": data}
    return world.registry.patch("configmaps", "default", "c", change, "merge")


def test_what_is_ending_gets_no_new_finalizers(ending: World) -> None:
    with pytest.raises(ApiError) as refused:
        finalized(ending, "a/b", "c/d", "x/z", "x/y")
    assert refusal(refused.value) == (
        422,
        "Invalid",
        'ConfigMap "c" is invalid: metadata.finalizers: Forbidden: no new finalizers can be added if the '
        'object is being deleted, found new finalizers []string{"x/y", "x/z"}',
    )


def test_what_is_ending_may_change_and_goes_with_its_last_finalizer(ending: World) -> None:
    assert finalized(ending, "c/d", a="2")["data"] == {"a": "2"}
    finalized(ending)
    assert ending.store.get("configmaps", "default", "c") is None


def test_nobody_takes_an_end_back(ending: World) -> None:
    when = ending.get("configmaps", "c")["metadata"]["deletionTimestamp"]
    again = {"metadata": {"deletionTimestamp": None}}
    found = ending.registry.patch("configmaps", "default", "c", again, "merge")
    assert found["metadata"]["deletionTimestamp"] == when


# --- the two halves of an object --------------------------------------------------------------------


def test_an_update_of_the_one_half_leaves_the_other() -> None:
    world = World()
    made = world.registry.create(pod("p"), manager="me")
    body = {**made, "spec": {**made["spec"], "activeDeadlineSeconds": 5}, "status": {"phase": "Failed"}}
    assert world.registry.update(body)["status"] == {"phase": "Pending"}
    stored = world.get("pods", "p")
    found = world.registry.update(
        {**stored, "spec": {}, "status": {"phase": "Running"}}, subresource="status"
    )
    assert found["status"] == {"phase": "Running"}
    assert found["spec"] == stored["spec"]


def test_a_generation_is_of_the_spec() -> None:
    world = World()
    made = world.registry.create(deployment("d"))
    labelled = world.registry.update(with_meta(made, labels={"a": "b"}))
    assert labelled["metadata"]["generation"] == 1
    scaled = world.registry.update({**labelled, "spec": {**made["spec"], "replicas": 1}})
    assert scaled["metadata"]["generation"] == 2
    status = world.registry.update({**scaled, "status": {"replicas": 1}}, subresource="status")
    assert status["metadata"]["generation"] == 2


def test_custom_resources_take_no_strategic_patches() -> None:
    world = World()
    names = {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"}
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    world.create(
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": "things.x.io"},
            "spec": {"group": "x.io", "scope": "Namespaced", "names": names, "versions": [version]},
        }
    )
    world.create(
        {"apiVersion": "x.io/v1", "kind": "Thing", "metadata": {"name": "t"}, "l": [1], "m": {"a": 1}}
    )
    with pytest.raises(ApiError) as refused:
        world.registry.patch("things.x.io", "default", "t", {"l": [2]}, "strategic")
    assert refusal(refused.value) == (
        415,
        "UnsupportedMediaType",
        "the body of the request was in an unknown format - accepted media types include: "
        "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
    )
    config: Obj = {"apiVersion": "x.io/v1", "kind": "Thing", "metadata": {"name": "t"}, "m": {"b": 2}}
    found, _ = world.registry.apply_patch("things.x.io", "default", "t", config, manager="me")
    assert (found["l"], found["m"]) == ([1], {"a": 1, "b": 2})
    with pytest.raises(ApiError, match="must be specified for an update"):
        world.registry.update(without(found, "resourceVersion"))


def test_a_json_patch_has_its_limits() -> None:
    world = World()
    world.registry.create(config_map())
    operations = [{"op": "test", "path": "/kind", "value": "ConfigMap"}] * 10001
    with pytest.raises(ApiError) as refused:
        world.registry.patch("configmaps", "default", "c", operations, "json")
    message = "The allowed maximum operations in a JSON patch is 10000, got 10001"
    assert refusal(refused.value) == (413, "RequestEntityTooLarge", message)
