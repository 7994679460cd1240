"""template.yaml: what it refuses, what it leaves closed, and that it speaks of settings that exist."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

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


def evaluate(expression: Any, values: dict[str, str]) -> Any:
    """A condition or rule, as CloudFormation computes it for parameter `values`."""
    if not isinstance(expression, dict):
        return str(expression)
    ((function, operand),) = expression.items()
    if function == "Ref":
        return None if operand == "AWS::NoValue" else values[operand]
    if function == "Fn::Sub":
        return operand
    if function == "Condition":
        return evaluate(TEMPLATE["Conditions"][operand], values)
    if function == "Fn::If":
        condition, so, otherwise = operand
        return evaluate(so if evaluate({"Condition": condition}, values) else otherwise, values)
    operands = [evaluate(part, values) for part in operand]
    if function == "Fn::Equals":
        return operands[0] == operands[1]
    return {"Fn::Not": not operands[0], "Fn::And": all(operands), "Fn::Or": any(operands)}[function]


def refusals(**chosen: str) -> list[str]:
    """What the template says against these parameters, the others at their defaults."""
    values = {name: str(parameter["Default"]) for name, parameter in PARAMETERS.items()} | chosen
    return [
        assertion["AssertDescription"]
        for rule in TEMPLATE["Rules"].values()
        if evaluate(rule["RuleCondition"], values)
        for assertion in rule["Assertions"]
        if not evaluate(assertion["Assert"], values)
    ]


def test_the_defaults_are_accepted() -> None:
    assert refusals() == []


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"SnapStart": "PublishedVersions", "ProvisionedConcurrency": "1"}, "exclude each other"),
        ({"SnapStart": "PublishedVersions", "EphemeralStorage": "1024"}, "no more than 512 MB"),
        ({"Authorization": "API_KEYS"}, "needs ApiKeysSecretArn"),
        ({"ApiKeysSecretArn": "arn:aws:secretsmanager:eu-central-1:1:secret:keys"}, "Authorization is not API_KEYS"),
        ({"ModelBucket": "models"}, "needs ModelPrefix"),
        ({"Batch": "map"}, "needs BatchBucket"),
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
    by_default = {name: str(parameter["Default"]) for name, parameter in PARAMETERS.items()}
    assert evaluate({"Condition": "AsksIam"}, by_default)
    iam, keys, nothing = PARAMETERS["Authorization"]["AllowedValues"]
    assert (iam, keys) == ("AWS_IAM", "API_KEYS")
    assert "anyone-on-the-internet" in nothing
    assert not evaluate({"Condition": "HasUnsignedUrl"}, by_default | {"FunctionUrl": "buffered"})


@pytest.mark.parametrize("api", PARAMETERS["Api"]["AllowedValues"])
@pytest.mark.parametrize("url", PARAMETERS["FunctionUrl"]["AllowedValues"])
def test_the_function_is_told_which_of_its_doors_stream(api: str, url: str) -> None:
    chosen = {name: str(parameter["Default"]) for name, parameter in PARAMETERS.items()}
    chosen |= {"Api": api, "FunctionUrl": url}
    resources = TEMPLATE["Resources"]
    doors = []
    if evaluate(resources["Url"]["Properties"]["InvokeMode"], chosen) == "RESPONSE_STREAM":
        doors.append("function-url")
    rest = resources["RestApi"]["Properties"]["DefinitionBody"]["paths"]["/{proxy+}"]["x-amazon-apigateway-any-method"]
    integration = rest["x-amazon-apigateway-integration"]
    if evaluate(integration["responseTransferMode"], chosen) == "STREAM":
        doors.append("rest-api")
        assert evaluate(integration["timeoutInMillis"], chosen) == "900000"
        assert "/2021-11-15/" in evaluate(integration["uri"], chosen)
        assert evaluate(integration["uri"], chosen).endswith("/response-streaming-invocations")
    told = resources["CausalLM"]["Properties"]["Environment"]["Variables"]["STREAMING_DOORS"]
    assert (evaluate(told, chosen) or "") == ",".join(doors)
    assert ("function-url" in doors, "rest-api" in doors) == (url == "streaming", api == "rest-streaming")


def test_no_role_may_do_more_than_it_must() -> None:
    for statement in re.findall(r"Action: (.*)", (ROOT / "template.yaml").read_text()):
        assert "*" not in statement


def test_the_function_gets_settings_that_exist() -> None:
    function = TEMPLATE["Resources"]["CausalLM"]["Properties"]
    settings = (ROOT / "settings.py").read_text()
    for name in function["Environment"]["Variables"]:
        assert f'"{name}"' in settings, name


def test_the_build_gets_arguments_that_the_dockerfile_has() -> None:
    arguments = TEMPLATE["Resources"]["CausalLM"]["Metadata"]["DockerBuildArgs"]
    dockerfile = (ROOT / "Dockerfile").read_text()
    for name in arguments:
        assert f"ARG {name}=" in dockerfile, name


def test_metrics_on_the_dashboard_and_in_alarms_are_ones_the_handler_emits() -> None:
    body = TEMPLATE["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    used = {TEMPLATE["Resources"]["InitAlarm"]["Properties"]["MetricName"]}
    for widget in re.findall(r'\["CausalLM".*', body):
        used |= set(re.findall(r'"(\w+(?:_ms|_tokens|_second))"', widget))
    emitted = "".join((ROOT / path).read_text() for path in ("aws/observability.py", "model_loader.py"))
    for name in used:
        assert f'"{name.removeprefix("cold_start_")}"' in emitted, name
    assert len(used) > 10
