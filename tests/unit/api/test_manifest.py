from __future__ import annotations

import io
import json
import time
from importlib.resources import files
from pathlib import Path

import pytest

from nsk8s.api import manifest
from nsk8s.api.manifest import Manifest
from nsk8s.errors import ManifestError

CLUSTER = "apiVersion: nsk8s.dev/v1\nkind: Cluster\nmetadata: {name: lab}\n"
POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\nspec: {containers: [{name: a, image: b}]}\n"
SERVICE = (
    "apiVersion: v1\nkind: Service\nmetadata: {name: %s}\nspec: {type: NodePort, ports: [{port: 80%s}]%s}\n"
)
EXAMPLES = Path(str(files("nsk8s").joinpath("examples")))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(text: str | bytes) -> Manifest:
    Path("f.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
    return manifest.read(["f.yaml"])


def mistakes(text: str | bytes) -> list[str]:
    with pytest.raises(ManifestError) as wrong:
        read(text)
    return [str(problem) for problem in wrong.value.problems]


def value(text: str) -> object:
    """What a scalar means, in the data of a ControllerRevision, which can be anything."""
    found = read(
        f"apiVersion: apps/v1\nkind: ControllerRevision\nmetadata: {{name: a}}\ndata: {{x: {text}}}\n"
    )
    return found.objects[0].obj["data"]["x"]


@pytest.mark.usefixtures("here")
class TestReading:
    def test_a_cluster_and_its_objects(self) -> None:
        found = read(f"{CLUSTER}---\n{POD % 'p'}---\n---\n# nothing\n---\n{SERVICE % ('s', '', '')}")
        assert found.topology is not None
        assert found.cluster is not None
        assert found.topology.name == found.cluster["metadata"]["name"] == "lab"
        assert [d.obj["kind"] for d in found.objects] == ["Pod", "Service"]
        assert found.objects[0].at("spec.containers[0].image") == ("f.yaml", 8, 31)
        assert found.objects[0].at("spec.containers[0].ports[3].name") == ("f.yaml", 8, 21)
        assert found.objects[0].at("") == ("f.yaml", 5, 1)

    def test_no_cluster_document(self) -> None:
        found = read(POD % "p")
        assert (found.topology, found.cluster) == (None, None)

    def test_objects_stay_as_written(self) -> None:
        obj = read(POD % "p" + "status: null\nextra: {when: 2026-01-02, odd: [1, ~, 1.5]}\n").objects[0].obj
        assert obj == {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "a", "image": "b"}]},
            "status": None,
            "extra": {"when": "2026-01-02", "odd": [1, None, 1.5]},
        }

    def test_kinds_not_acted_on_are_named_once(self) -> None:
        text = "---\n".join(
            f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}}}\n"
            for version, kind, name in (
                ("v1", "LimitRange", "a"),
                ("v1", "PodTemplate", "a"),
                ("v1", "LimitRange", "b"),
                ("v1", "Namespace", "b"),
            )
        )
        assert read(text).ignored == ("LimitRange", "PodTemplate")

    def test_a_list_is_taken_apart(self) -> None:
        items = [
            json.loads(json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": n}}))
            for n in "ab"
        ]
        found = read(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent="\t"))
        assert [d.obj["metadata"]["name"] for d in found.objects] == ["a", "b"]
        assert mistakes("kind: List\napiVersion: v1\nitems:\n- 3\n- {kind: Pot, apiVersion: v1}\n") == [
            "f.yaml:4:3: items[0]: an item of a List must be an object",
            'f.yaml:5:4: kind: no matches for kind "Pot" in version "v1"; did you mean "Pod" (v1)?',
        ]

    @pytest.mark.parametrize(
        ("text", "meaning"),
        [
            ("yes", True),
            ("Off", False),
            ("n", False),
            ("true", True),
            ("~", None),
            ("Null", None),
            ("'yes'", "yes"),
            ("0777", 511),
            ("0o17", 15),
            ("0x1F", 31),
            ("-0b11", -3),
            ("1_000", 1000),
            ("08", 8.0),
            ("1.5e3", 1500.0),
            (".5", 0.5),
            ("1:30", "1:30"),
            ("1e999", "1e999"),
            ("+", "+"),
            ("-", "-"),
            ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
            ("10.0.0.1", "10.0.0.1"),
            ("=", "="),
            ("!!str 5", "5"),
            ("!!int '5'", 5),
            ("!!float 5", 5),
            ("!!binary aGk=", "hi"),
            ("!!null ''", None),
        ],
    )
    def test_scalars_mean_what_they_mean_to_kubectl(self, text: str, meaning: object) -> None:
        got = value(text)
        assert (got, type(got)) == (meaning, type(meaning)) or (text == "!!float 5" and got == 5)

    def test_keys_are_strings(self) -> None:
        assert value("{80: a, yes: b, 1.5: c, 'x': d}") == {"80": "a", "true": "b", "1.5": "c", "x": "d"}

    def test_anchors_and_merges(self) -> None:
        assert value("{a: &a {b: 1, c: 2}, d: {<<: *a, b: 3}, e: *a, f: {<<: [*a, {g: 4}]}}") == {
            "a": {"b": 1, "c": 2},
            "d": {"b": 3, "c": 2},
            "e": {"b": 1, "c": 2},
            "f": {"b": 1, "c": 2, "g": 4},
        }

    def test_standard_input_and_a_file_named_twice(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO((POD % "p").encode())))
        Path("a.yaml").write_text(POD % "q")
        found = manifest.read(["-", "a.yaml", "./a.yaml"])
        assert [d.obj["metadata"]["name"] for d in found.objects] == ["p", "q"]
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"- 1")))
        with pytest.raises(ManifestError, match=r"^<stdin>:1:1: a document must be a mapping"):
            manifest.read(["-"])


@pytest.mark.usefixtures("here")
class TestMistakes:
    @pytest.mark.parametrize(
        ("text", "mistake"),
        [
            ("", "f.yaml:1:1: nothing in it"),
            ("# only this\n---\n", "f.yaml:1:1: nothing in it"),
            ("a: [1\nb: 2\n", "f.yaml:2:2: not YAML: did not find expected ',' or ']'"),
            (
                "a:\n\tb: 1\n",
                "f.yaml:2:1: not YAML: found character that cannot start any token while scanning for "
                "the next token; YAML is indented with spaces, not with tabs",
            ),
            ("a: b: c\n", "f.yaml:1:5: not YAML: mapping values are not allowed in this context"),
            (b"a: \xff\n", "f.yaml:1:4: not UTF-8: byte 0xff"),
            ("é: \x01\n", "f.yaml:1:4: the character 1 is not allowed in YAML"),
            ("a: 1\nb: {c: 1, c: 2}\n", "f.yaml:2:11: b.c: this key is here twice"),
            ("a: 1\nyes: 1\ntrue: 2\n", "f.yaml:3:1: true: this key is here twice"),
            ("- a\n", "f.yaml:1:1: a document must be a mapping, not a list"),
            ("hello\n", "f.yaml:1:1: a document must be a mapping, not a value"),
            ("a: *b\n", "f.yaml:1:4: not YAML: found undefined alias"),
            ("a: &a [*a]\n", "f.yaml:1:4: an alias that holds itself"),
            ("a: !mine 3\n", "f.yaml:1:4: a: the tag !mine is not known here"),
            ("a: !!set {b}\n", "f.yaml:1:4: a: the tag !!set is not known here"),
            ("a: !!int b\n", 'f.yaml:1:4: a: cannot decode "b" as !!int'),
            ("a: .inf\n", "f.yaml:1:4: a: .inf is a number that JSON cannot hold"),
            ("{[a]: b}\n", "f.yaml:1:2: a mapping or list cannot be a key"),
            ("{~: b}\n", "f.yaml:1:2: a key is missing"),
            ("a: {<<: 3}\n", "f.yaml:1:9: a: << takes a mapping"),
            ("kind: Pod\n", "f.yaml:1:1: apiVersion: Required value"),
            (
                f"{CLUSTER}---\n{CLUSTER}",
                "f.yaml:6:1: kind: a second Cluster document; the first is at f.yaml:2; keep one",
            ),
            (
                f"{CLUSTER}spec:\n  podCIDRs: x\n",
                'f.yaml:5:3: spec.podCIDRs: unknown field; did you mean "podCIDR"?',
            ),
            (f"{POD % 'p'}---\n{POD % 'p'}", 'f.yaml:8:12: metadata.name: Duplicate value: "p"'),
            (
                POD.replace("name: %s", "generateName: p-"),
                "f.yaml:3:12: metadata.generateName: cannot be used in a file",
            ),
            (
                f"{CLUSTER}---\n{POD % 'p, namespace: x'}",
                'f.yaml:7:21: metadata.namespace: namespaces "x" not found',
            ),
            (
                SERVICE % ("a", ", nodePort: 30000", "") + "---\n" + SERVICE % ("b", ", nodePort: 30000", ""),
                "f.yaml:9:43: spec.ports[0].nodePort: Invalid value: 30000: provided port is already "
                "allocated; service default/a has it",
            ),
            (
                f"{CLUSTER}---\n{SERVICE % ('a', '', ', clusterIP: 10.97.0.1')}",
                'f.yaml:8:45: spec.clusterIP: Invalid value: "10.97.0.1": failed to allocate IP 10.97.0.1: '
                "the provided IP (10.97.0.1) is not in the valid range. The range of valid IPs is "
                "10.96.0.0/16",
            ),
            (
                f"{CLUSTER}---\n{SERVICE % ('a', '', ', clusterIP: 10.96.0.1')}",
                'f.yaml:8:45: spec.clusterIP: Invalid value: "10.96.0.1": failed to allocate IP 10.96.0.1: '
                "provided IP is already allocated; service default/kubernetes has it",
            ),
        ],
    )
    def test_a_mistake_has_its_place_and_its_remedy(self, text: str | bytes, mistake: str) -> None:
        found = mistakes(text)
        assert any(line.startswith(mistake) for line in found), found

    def test_all_mistakes_of_all_files_in_their_order(self) -> None:
        Path("b.yaml").write_text(f"{POD % 'A'}---\n{SERVICE % ('s', ', nodePort: 1', '')}---\nkind: [\n")
        Path("a.yaml").write_text(CLUSTER.replace("lab", "Lab") + "spec: {nodes: [{name: x, rol: y}]}\n")
        Path("d").mkdir()
        with pytest.raises(ManifestError) as wrong:
            manifest.read(["b.yaml", "missing.yaml", "a.yaml", "d", "nul\0.yaml"])
        assert [(p.file, p.line, p.path) for p in wrong.value.problems] == [
            ("b.yaml", 3, "metadata.name"),
            ("b.yaml", 9, "spec.ports[0].nodePort"),
            ("b.yaml", 12, ""),
            ("missing.yaml", 1, ""),
            ("a.yaml", 3, "metadata.name"),
            ("a.yaml", 4, "spec.nodes[0].rol"),
            ("d", 1, ""),
            ("nul\0.yaml", 1, ""),
        ]
        assert "name its files: d/*.yaml" in str(wrong.value)

    def test_aliases_that_explode(self) -> None:
        bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
            f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 30)
        )
        assert "aliases that expand to more than" in mistakes(bomb)[0]

    @pytest.mark.parametrize("text", ["[" * 300_000, "a: " + "[" * 150 + "]" * 150, "- " * 200_000 + "x"])
    def test_nesting_without_end(self, text: str) -> None:
        assert "nested deeper than 100 levels" in mistakes(text)[0]

    @pytest.mark.parametrize(
        ("spec", "objects", "path"),
        [
            ("{nodes: [{name: a, podCIDR: 10.244.0.0/29}]}", ["Deployment 6"], "spec.nodes[0].podCIDR"),
            ("{nodes: [{name: a}, {name: b}]}", ["Deployment 507"], "spec.podCIDR"),
            ("{nodes: [{name: a, role: control-plane}, {name: b}]}", ["Deployment 254"], ""),
            ("{nodes: [{name: a}, {name: b}]}", ["Deployment 254 nodeName: b"], ""),
        ],
    )
    def test_too_few_addresses_for_the_pods(self, spec: str, objects: list[str], path: str) -> None:
        documents = []
        for words in objects:
            _, count, *where = words.split(" ", 2)
            documents.append(
                f"apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: d}}\nspec:\n  replicas: {count}\n"
                "  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n"
                f"    spec: {{containers: [{{name: c, image: i}}]{', ' + where[0] if where else ''}}}\n"
            )
        text = f"{CLUSTER}spec: {spec}\n---\n" + "---\n".join(documents)
        (found,) = mistakes(text)
        assert "too small" in found
        assert path in found
        fewer = text.replace("replicas: 6", "replicas: 5").replace("507", "506").replace("254", "253")
        assert read(fewer).topology is not None

    def test_pods_of_the_nodes_network_need_no_address(self) -> None:
        pods = "---\n".join(POD % f"p{i}" for i in range(6)).replace("spec: {", "spec: {hostNetwork: true, ")
        text = f"{CLUSTER}spec: {{nodes: [{{name: a, podCIDR: 10.244.0.0/29}}]}}\n---\n{pods}"
        assert len(read(text).objects) == 6

    def test_a_service_network_too_small_for_the_services(self) -> None:
        services = "---\n".join(SERVICE % (f"s{i}", "", "") for i in range(14))
        (found,) = mistakes(f"{CLUSTER}spec: {{serviceCIDR: 10.96.0.0/28}}\n---\n{services}")
        assert found.startswith(
            'f.yaml:4:8: spec.serviceCIDR: "10.96.0.0/28" is too small: 13 addresses for 14'
        )


@pytest.mark.parametrize(
    "names",
    [
        *([path.name] for path in sorted(EXAMPLES.glob("*.yaml"))),
        [
            "article/topology.yaml",
            *(f"article/{n}.yaml" for n in ("nginx-pod", "busybox-pod", "whoami-deployment")),
        ],
        [
            "article/topology.yaml",
            *(f"article/{n}.yaml" for n in ("tomcat", "ingress-nginx", "tomcat-ingress-v1")),
        ],
    ],
)
def test_the_examples_are_valid(names: list[str]) -> None:
    found = manifest.read([str(EXAMPLES / name) for name in names])
    assert found.topology is not None
    assert found.objects


def test_the_articles_networks() -> None:
    topology = manifest.read([str(EXAMPLES / "article/topology.yaml")]).topology
    assert topology is not None
    assert {n.name: n.pod_cidr for n in topology.nodes} == {
        "master": "192.168.0.0/24",
        "w1": "192.168.14.0/24",
        "w2": "192.168.221.0/24",
    }
    assert [c.name for c in topology.clients] == ["external"]


def test_four_thousand_lines_are_read_in_no_time(tmp_path: Path) -> None:
    deployment = (
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: d{0}\n  labels:\n    app: d{0}\nspec:\n"
        "  replicas: 10\n  selector:\n    matchLabels:\n      app: d{0}\n  template:\n    metadata:\n"
        "      labels:\n        app: d{0}\n    spec:\n      containers:\n      - name: web\n"
        "        image: nginx\n"
        "        ports:\n        - containerPort: 80\n        readinessProbe:\n          httpGet:\n"
        "            path: /\n            port: 80\n---\n"
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: d{0}\nspec:\n  selector:\n    app: d{0}\n"
        "  ports:\n"
        "  - name: http\n    port: 80\n    targetPort: 80\n    protocol: TCP\n"
    )
    nodes = "".join(f"  - name: n{i}\n" for i in range(10))
    text = f"{CLUSTER}spec:\n  nodes:\n{nodes}---\n" + "---\n".join(deployment.format(i) for i in range(100))
    file = tmp_path / "big.yaml"
    file.write_text(text)
    assert text.count("\n") > 3900
    spent = []
    for _ in range(3):
        begun = time.process_time()
        assert len(manifest.read([str(file)]).objects) == 200
        spent.append(time.process_time() - begun)
    assert min(spent) < 0.3  # about 0.03 on the development machine; ten times that is a quadratic mistake
