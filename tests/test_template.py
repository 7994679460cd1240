"""template.yaml: what it refuses, what it leaves closed, and that it speaks of settings that exist."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from api.errors import InternalError
from aws.cross_origin import EXPOSED

ROOT = Path(__file__).parent.parent


class CloudFormation(yaml.SafeLoader):  # type: ignore[misc]
    """YAML with CloudFormation's short forms, each read as its long form."""


def _long_form(loader: CloudFormation, suffix: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


CloudFormation.add_multi_constructor("!", _long_form)
TEMPLATE = yaml.load((ROOT / "template.yaml").read_text(), Loader=CloudFormation)
PARAMETERS: dict[str, dict[str, Any]] = TEMPLATE["Parameters"]
RESOURCES: dict[str, dict[str, Any]] = TEMPLATE["Resources"]
FUNCTION: dict[str, Any] = TEMPLATE["Globals"]["Function"]
REST_PATHS: dict[str, Any] = RESOURCES["RestApi"]["Properties"]["DefinitionBody"]["paths"]
FUNCTIONS = ("CausalLM", "ManagedCausalLM")
"""The function on demand and on Managed Instances; FUNCTION is what both are."""
MANAGED = {
    "Capacity": "managed",
    "SubnetIds": "subnet-0123abcd",
    "SecurityGroupIds": "sg-0123abcd",
    "MemorySize": "8192",
}


def evaluate(expression: Any, values: dict[str, str]) -> Any:
    """A condition or rule, as CloudFormation computes it for parameter `values`."""
    if not isinstance(expression, dict):
        return str(expression)
    ((function, operand),) = expression.items()
    if function == "Ref":
        return None if operand == "AWS::NoValue" else values[operand]
    if function == "Fn::Sub":
        return operand if isinstance(operand, str) else operand[0]
    if function == "Condition":
        return evaluate(TEMPLATE["Conditions"][operand], values)
    if function == "Fn::If":
        condition, so, otherwise = operand
        return evaluate(so if evaluate({"Condition": condition}, values) else otherwise, values)
    if function == "Fn::Contains":
        return evaluate(operand[1], values) in operand[0]
    operands = [evaluate(part, values) for part in operand]
    if function == "Fn::Equals":
        return operands[0] == operands[1]
    return {"Fn::Not": not operands[0], "Fn::And": all(operands), "Fn::Or": any(operands)}[function]


def with_defaults(chosen: dict[str, str]) -> dict[str, str]:
    """All parameters: the chosen ones, the others at their defaults."""
    return {name: str(parameter["Default"]) for name, parameter in PARAMETERS.items()} | chosen


def refusals(**chosen: str) -> list[str]:
    """What the template says against these parameters, the others at their defaults."""
    values = with_defaults(chosen)
    return [
        assertion["AssertDescription"]
        for rule in TEMPLATE["Rules"].values()
        if evaluate(rule["RuleCondition"], values)
        for assertion in rule["Assertions"]
        if not evaluate(assertion["Assert"], values)
    ]


def test_the_defaults_are_accepted() -> None:
    assert refusals() == []


@pytest.mark.parametrize(("memory", "per_vcpu"), [("2048", "2"), ("4096", "4"), ("8192", "8"), ("32768", "2")])
def test_managed_instances_are_accepted(memory: str, per_vcpu: str) -> None:
    assert refusals(**MANAGED | {"MemorySize": memory, "MemoryPerVcpu": per_vcpu}) == []


def exists(resource: dict[str, Any], values: dict[str, str]) -> bool:
    return "Condition" not in resource or bool(evaluate({"Condition": resource["Condition"]}, values))


def referred_to(part: Any, values: dict[str, str]) -> set[str]:
    """The names that a part of the template refers to, of each condition's branches only the one that counts."""
    if isinstance(part, list):
        return set().union(*(referred_to(each, values) for each in part))
    if not isinstance(part, dict):
        return set()
    if "Fn::If" in part:
        condition, so, otherwise = part["Fn::If"]
        return referred_to(so if evaluate({"Condition": condition}, values) else otherwise, values)
    found = set().union(*(referred_to(each, values) for each in part.values()))
    for function in ("Ref", "Fn::GetAtt"):
        if isinstance(part.get(function), str):
            found.add(part[function].partition(".")[0])
    if "Fn::Sub" in part:
        text, names = part["Fn::Sub"] if isinstance(part["Fn::Sub"], list) else (part["Fn::Sub"], {})
        found |= {name.partition(".")[0] for name in re.findall(r"\$\{([\w.:]+)}", text)} - names.keys()
    return found


@pytest.mark.parametrize("capacity", [{}, MANAGED], ids=["ondemand", "managed"])
@pytest.mark.parametrize("api", PARAMETERS["Api"]["AllowedValues"])
@pytest.mark.parametrize("batch", PARAMETERS["Batch"]["AllowedValues"])
def test_what_is_there_refers_only_to_what_is_there(capacity: dict[str, str], api: str, batch: str) -> None:
    chosen = capacity | {"Api": api, "Batch": batch, "FunctionUrl": "streaming", "Authorization": "API_KEYS"}
    values = with_defaults(chosen)
    there = {name for name, resource in RESOURCES.items() if exists(resource, values)}
    assert len(there & set(FUNCTIONS)) == 1
    parts = [RESOURCES[name] for name in there] + [FUNCTION]
    parts += [output for output in TEMPLATE["Outputs"].values() if exists(output, values)]
    known = there | PARAMETERS.keys()
    assert {name for name in referred_to(parts, values) if not name.startswith("AWS::")} <= known


def resolved(part: Any, values: dict[str, str]) -> Any:
    """A part of the template as CloudFormation makes it of parameter `values`; other references stay names."""
    if isinstance(part, list):
        return [resolved(each, values) for each in part]
    if not isinstance(part, dict):
        return part
    if "Ref" in part:
        return values.get(part["Ref"], part["Ref"])
    if "Fn::GetAtt" in part:
        return values.get(str(part["Fn::GetAtt"]).partition(".")[0], part)
    if "Fn::If" in part:
        condition, so, otherwise = part["Fn::If"]
        return resolved(so if evaluate({"Condition": condition}, values) else otherwise, values)
    if "Fn::Sub" in part:
        text, names = part["Fn::Sub"] if isinstance(part["Fn::Sub"], list) else (part["Fn::Sub"], {})
        known = values | resolved(names, values)
        return re.sub(r"\$\{([\w.:]+)\}", lambda name: str(known.get(name[1], name[0])), text)
    return {name: resolved(each, values) for name, each in part.items()}


OTHER = {
    "ContextLength": "512", "ModelRevision": 40 * "0", "Prompts": "prompts/a.txt", "QualityBound": "0.5",
    "ModelBucket": "models", "ModelPrefix": "mine", "ModelName": "other", "BatchBucket": "files",
    "ApiKeysSecretArn": "arn:aws:secretsmanager:eu-central-1:1:secret:keys", "CorsOrigins": "https://a.example",
    "AlarmTopicArn": "arn:aws:sns:eu-central-1:1:topic", "BaseImage": "python:3.13", "Model": "models/mine",
    "SubnetIds": "subnet-1", "SecurityGroupIds": "sg-1", "InstanceTypes": "c7i.xlarge",
}  # fmt: skip
"""A value other than the default, of the parameters that are not a choice or a number."""
NOT_OF_A_VERSION = {"ReservedConcurrentExecutions", "ProvisionedConcurrencyConfig", "EventInvokeConfig"}
"""What the function, or its alias, has beside its versions (AWS's API reference, PublishVersion)."""


def with_instances(values: dict[str, str]) -> dict[str, str]:
    """`values` with the capacity provider's name: CloudFormation makes another one where one of these parts changes."""
    provider = RESOURCES["Instances"]["Properties"]
    replaced_with = [provider[part] for part in ("VpcConfig", "InstanceRequirements", "PermissionsConfig")]
    return values | {"Instances": str(resolved(replaced_with, values))}


@pytest.mark.parametrize("name", sorted(PARAMETERS.keys() - {"Capacity"}))
@pytest.mark.parametrize("before", [{}, {"ModelBucket": "bucket", "ModelPrefix": "x"}, MANAGED], ids=str)
def test_a_version_is_published_exactly_when_a_parameter_changes_the_function(
    name: str, before: dict[str, str]
) -> None:
    parameter = PARAMETERS[name]
    choices = [str(value) for value in parameter.get("AllowedValues", [])]
    choices = choices or ([OTHER[name]] if name in OTHER else [str(parameter["MaxValue"])])
    function = RESOURCES["ManagedCausalLM" if before == MANAGED else "CausalLM"]["Properties"]
    assert function["VersionDescription"] == {"Ref": "FunctionPolicy"}
    configuration = {key: part for key, part in (FUNCTION | function).items() if key not in NOT_OF_A_VERSION}
    policy = RESOURCES["FunctionPolicy"]["Properties"]["Description"]
    old = with_instances(with_defaults(before))
    for new in (with_instances(old | {name: choice}) for choice in choices):
        published = resolved(policy, old) != resolved(policy, new)
        assert published == (resolved(configuration, old) != resolved(configuration, new))


def test_what_a_version_is_published_for_fits_into_a_policy_s_description() -> None:
    longest = {
        name: max([str(each) for each in parameter.get("AllowedValues", [])], key=len, default="")
        or str(parameter.get("MaxValue") or parameter.get("MaxLength", 0) * "x")
        for name, parameter in PARAMETERS.items()
    }
    # A name that CloudFormation makes: the stack's, of 71 characters at most (a queue's has 9 more, 80 at most), the
    # resource's and twelve random ones.
    longest |= {
        "Capacity": "managed",
        "Instances": 95 * "x",
        "ModelBucket": 63 * "x",
        "FunctionUrl": "streaming",
        "Api": "rest-streaming",
    }
    assert 500 < len(resolved(RESOURCES["FunctionPolicy"]["Properties"]["Description"], longest)) <= 1000


def test_a_door_s_change_takes_effect_and_leaves_no_moment_without_a_check() -> None:
    assert RESOURCES["RestApi"]["Properties"]["AlwaysDeploy"] is True
    doors = (RESOURCES["HttpApi"]["Properties"], RESOURCES["RestApi"]["Properties"], RESOURCES["Url"]["Properties"])
    for choice in PARAMETERS["Authorization"]["AllowedValues"]:
        values = with_defaults({"Authorization": choice, "Api": "http", "FunctionUrl": "buffered"})
        signed = resolved(FUNCTION["Environment"]["Variables"]["SIGNED_ONLY"], values) == "true"
        assert signed == (choice == "AWS_IAM")
        for door in doors:
            part = door.get("DefinitionBody", {}).get("paths", door)
            asked = set(re.findall(r"(?:'type'|'AuthType'): '(AWS_IAM|NONE)'", str(resolved(part, values))))
            assert asked == {"AWS_IAM" if signed else "NONE"}


def test_pages_of_other_origins_are_let_in_only_where_they_are_named() -> None:
    body, url = RESOURCES["HttpApi"]["Properties"]["DefinitionBody"], RESOURCES["Url"]["Properties"]
    for cors in (body["x-amazon-apigateway-cors"], url["Cors"]):
        condition, allowed, otherwise = cors["Fn::If"]
        assert otherwise == {"Ref": "AWS::NoValue"}
        assert not evaluate({"Condition": condition}, with_defaults({}))
        assert evaluate({"Condition": condition}, with_defaults({"CorsOrigins": "https://a.example"}))
        assert {"Fn::Split": [",", {"Ref": "CorsOrigins"}]} in allowed.values()
    exposed = [each["Fn::If"][1] for each in (body["x-amazon-apigateway-cors"], url["Cors"])]
    assert [set(cors.get("exposeHeaders", cors.get("ExposeHeaders"))) for cors in exposed] == 2 * [set(EXPOSED)]
    pattern = PARAMETERS["CorsOrigins"]["AllowedPattern"]
    assert re.match(pattern, "https://a.example,http://localhost:3000")
    assert not re.match(pattern, "*"), "any page could spend what a URL without keys costs"


def test_a_rest_api_answers_at_its_address_as_at_every_path() -> None:
    root, others = (REST_PATHS[path]["x-amazon-apigateway-any-method"] for path in ("/", "/{proxy+}"))
    assert root == {name: value for name, value in others.items() if name != "parameters"}


@pytest.mark.parametrize("api", ["HttpApi", "RestApi"])
def test_what_browsers_ask_before_reaches_the_function_unsigned(api: str) -> None:
    values = with_defaults({"CorsOrigins": "https://a.example"})
    paths = RESOURCES[api]["Properties"]["DefinitionBody"]["paths"]
    unsigned = resolved(paths["/{proxy+}"], values)["options"]
    assert unsigned["x-amazon-apigateway-auth"] == {"type": "NONE"}
    assert unsigned["x-amazon-apigateway-integration"]["type"] == "aws_proxy"
    (everything,) = {"/$default", "/{proxy+}"} & paths.keys() - ({"/{proxy+}"} if api == "HttpApi" else set())
    signed = resolved(paths[everything], values)["x-amazon-apigateway-any-method"]
    assert signed["x-amazon-apigateway-auth"] == {"type": "AWS_IAM"}
    assert signed["x-amazon-apigateway-integration"] == unsigned["x-amazon-apigateway-integration"]


def test_without_named_origins_nothing_is_unsigned() -> None:
    for api in ("HttpApi", "RestApi"):
        path = resolved(RESOURCES[api]["Properties"]["DefinitionBody"]["paths"]["/{proxy+}"], with_defaults({}))
        assert path == "AWS::NoValue" or path["options"] == "AWS::NoValue"


def test_the_function_is_told_the_origins() -> None:
    variables = TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]
    for chosen in ("", "https://a.example,https://b.example"):
        assert (evaluate(variables["CORS_ORIGINS"], with_defaults({"CorsOrigins": chosen})) or "") == chosen


def test_either_function_is_the_same_image_with_the_same_role() -> None:
    on_demand, managed = (RESOURCES[name] for name in FUNCTIONS)
    assert on_demand["Metadata"] == managed["Metadata"], "`sam build` builds what is the same once"
    for name in ("PackageType", "Role"):
        assert on_demand["Properties"][name] == managed["Properties"][name]


def test_sams_transform_takes_either_function() -> None:
    # What it refuses whatever the conditions say.
    on_demand, managed = (RESOURCES[name]["Properties"] for name in FUNCTIONS)
    assert not {"SnapStart", "ProvisionedConcurrencyConfig", "VpcConfig"} & (managed | FUNCTION).keys()
    assert "CapacityProviderConfig" not in on_demand | FUNCTION
    assert "Fn::If" not in managed["CapacityProviderConfig"]


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"SnapStart": "PublishedVersions", "ProvisionedConcurrency": "1"}, "exclude each other"),
        ({"SnapStart": "PublishedVersions", "EphemeralStorage": "1024"}, "no more than 512 MB"),
        ({"Authorization": "API_KEYS"}, "needs ApiKeysSecretArn"),
        ({"ApiKeysSecretArn": "arn:aws:secretsmanager:eu-central-1:1:secret:keys"}, "Authorization is not API_KEYS"),
        ({"ModelBucket": "models"}, "needs ModelPrefix"),
        ({"Batch": "map"}, "needs BatchBucket"),
        ({"Batch": "sqs", "ReservedConcurrency": "1"}, "two environments at least"),
        ({"Model": "none"}, "needs ModelBucket"),
        (MANAGED | {"SubnetIds": ""}, "needs SubnetIds"),
        (MANAGED | {"SecurityGroupIds": ""}, "needs SecurityGroupIds"),
        (MANAGED | {"MemorySize": "3008"}, "is for Capacity=ondemand"),
        (MANAGED | {"MemorySize": "2048", "MemoryPerVcpu": "4"}, "less than one vCPU"),
        (MANAGED | {"MemorySize": "4096", "MemoryPerVcpu": "8"}, "less than one vCPU"),
        (MANAGED | {"SnapStart": "PublishedVersions"}, "have no SnapStart"),
        (MANAGED | {"ProvisionedConcurrency": "1"}, "set ProvisionedConcurrency=0"),
        (MANAGED | {"ReservedConcurrency": "10"}, "MaxVcpus caps"),
        ({"MemorySize": "8192"}, "is for Capacity=managed"),
        ({"SubnetIds": "subnet-0123abcd"}, "are for Capacity=managed"),
    ],
)
def test_combinations_that_cannot_work_are_refused(chosen: dict[str, str], said: str) -> None:
    (refusal,) = refusals(**chosen)
    assert said in refusal


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_every_parameter_is_described_and_bounded(name: str) -> None:
    parameter = PARAMETERS[name]
    assert parameter["Description"].endswith((".", ":"))
    assert {"AllowedValues", "AllowedPattern", "MinValue"} & parameter.keys()
    assert ("MinValue" in parameter) == ("MaxValue" in parameter)


def test_no_front_door_is_open_unless_the_parameter_says_so_in_words() -> None:
    by_default = with_defaults({})
    assert evaluate({"Condition": "AsksIam"}, by_default)
    iam, keys, nothing = PARAMETERS["Authorization"]["AllowedValues"]
    assert (iam, keys) == ("AWS_IAM", "API_KEYS")
    assert "anyone-on-the-internet" in nothing
    assert not evaluate({"Condition": "HasUnsignedUrl"}, by_default | {"FunctionUrl": "buffered"})


@pytest.mark.parametrize("api", PARAMETERS["Api"]["AllowedValues"])
@pytest.mark.parametrize("url", PARAMETERS["FunctionUrl"]["AllowedValues"])
def test_the_function_is_told_which_of_its_doors_stream(api: str, url: str) -> None:
    chosen = with_defaults({"Api": api, "FunctionUrl": url})
    doors = []
    if evaluate(RESOURCES["Url"]["Properties"]["InvokeMode"], chosen) == "RESPONSE_STREAM":
        doors.append("function-url")
    rest = REST_PATHS["/{proxy+}"]["x-amazon-apigateway-any-method"]
    integration = rest["x-amazon-apigateway-integration"]
    if evaluate(integration["responseTransferMode"], chosen) == "STREAM":
        doors.append("rest-api")
        assert evaluate(integration["timeoutInMillis"], chosen) == "900000"
        assert "/2021-11-15/" in evaluate(integration["uri"], chosen)
        assert evaluate(integration["uri"], chosen).endswith("/response-streaming-invocations")
    told = FUNCTION["Environment"]["Variables"]["STREAMING_DOORS"]
    assert (evaluate(told, chosen) or "") == ",".join(doors)
    assert ("function-url" in doors, "rest-api" in doors) == (url == "streaming", api == "rest-streaming")


def test_no_role_may_do_more_than_it_must() -> None:
    for statement in re.findall(r"Action: (.*)", (ROOT / "template.yaml").read_text()):
        assert "*" not in statement


def test_the_function_gets_settings_that_exist() -> None:
    settings = (ROOT / "settings.py").read_text() + (ROOT / "aws" / "observability.py").read_text()
    for name in FUNCTION["Environment"]["Variables"]:
        assert f'"{name}"' in settings, name


def test_the_build_gets_arguments_that_the_dockerfile_has() -> None:
    arguments = RESOURCES["CausalLM"]["Metadata"]["DockerBuildArgs"]
    dockerfile = (ROOT / "Dockerfile").read_text()
    for name in arguments:
        assert f"ARG {name}=" in dockerfile, name


def test_metrics_on_the_dashboard_and_in_alarms_are_ones_the_handler_emits() -> None:
    body = RESOURCES["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"][0]
    used = {RESOURCES["InitAlarm"]["Properties"]["MetricName"]}
    for widget in re.findall(r'\["CausalLM".*', body):
        used |= set(re.findall(r'"(\w+(?:_ms|_tokens|_second))"', widget))
    emitted = "".join((ROOT / path).read_text() for path in ("aws/observability.py", "model_loader.py"))
    for name in used:
        assert f'"{name.removeprefix("cold_start_")}"' in emitted, name
    assert len(used) > 10


def test_metrics_are_looked_for_where_the_function_puts_them() -> None:
    variables = FUNCTION["Environment"]["Variables"]
    of_stack = {"Name": "service", "Value": variables["POWERTOOLS_SERVICE_NAME"]}
    assert RESOURCES["InitAlarm"]["Properties"]["Dimensions"] == [of_stack]
    assert RESOURCES["InternalErrorsAlarm"]["Properties"]["Dimensions"] == [
        of_stack,
        {"Name": "error_type", "Value": InternalError.__name__},
    ]
    code = (
        "from aws import observability as o; o.metrics.add_metric('restores', 'Count', 1); o.metrics.flush_metrics(); "
        "from api.errors import InternalError; o.record_error(InternalError('x'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "POWERTOOLS_SERVICE_NAME": "a-stack"},
        capture_output=True,
        text=True,
        check=True,
    )
    written, _, error = map(json.loads, done.stdout.splitlines())
    assert error["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["service", "error_type"]]
    assert error["error_type"] == InternalError.__name__
    (metrics,) = written["_aws"]["CloudWatchMetrics"]
    assert (metrics["Namespace"], metrics["Dimensions"]) == ("CausalLM", [["service"]])
    assert written["service"] == "a-stack"
