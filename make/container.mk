# The container image and the SAM application. Docker must run; nothing here needs an AWS account.
# BASE_IMAGE=...: another base than AWS's. PARAMETERS="Model=models/mine Quantize=int4": parameters of template.yaml.
BASE_IMAGE ?= public.ecr.aws/lambda/python:3.13
PARAMETERS ?=
export BASE_IMAGE
EVENT ?= events/direct.json
IMAGE := causallm:latest
SAM := SAM_CLI_TELEMETRY=0 AWS_DEFAULT_REGION=us-east-1 $(VENV)/sam/bin/sam
# Parameters of the copies of template.yaml that are linted: the linters judge only what the defaults switch on.
MANAGED := Capacity=managed SubnetIds=subnet-0123abcd SecurityGroupIds=sg-0123abcd MemorySize=8192 InstanceTypes=c7i.xlarge
LINT_streaming := Api=rest-streaming FunctionUrl=streaming Batch=sqs
LINT_map := Batch=map BatchBucket=files
LINT_managed := $(MANAGED)
LINT_managed-streaming := $(MANAGED) $(LINT_streaming)
LINT_managed-map := $(MANAGED) $(LINT_map)
LINTED := template.yaml $(patsubst LINT_%,build/template-%.yaml,$(filter LINT_%,$(.VARIABLES)))

.PHONY: image invoke start-api start-lambda lint-template test-container

image: $(VENV)/sam/ready  ## build the image as `sam build` does; print its size and its largest parts
	$(SAM) build --config-env local --parameter-overrides BaseImage=$(BASE_IMAGE) $(PARAMETERS)
	@$(PYTHON) -m image.image_report $(IMAGE)

invoke: $(VENV)/sam/ready  ## invoke the image with EVENT=events/direct.json
	$(SAM) local invoke CausalLM --config-env local --event $(EVENT)

start-api: $(VENV)/sam/ready  ## API Gateway in front of the image, on http://127.0.0.1:3000
	$(SAM) local start-api --config-env local

start-lambda: $(VENV)/sam/ready  ## Lambda's Invoke API in front of the image, on http://127.0.0.1:3001
	$(SAM) local start-lambda --config-env local

lint-template: $(VENV)/sam/ready $(VENV)/checkov/ready $(LINTED)  ## validate and lint template.yaml and the Dockerfile
	for template in $(LINTED); do $(SAM) validate --lint --template $$template || exit 1; done
	$(VENV)/sam/bin/cfn-lint $(LINTED)
	$(VENV)/checkov/bin/checkov --quiet --compact --skip-download --file $(LINTED) Dockerfile

build/template-%.yaml: template.yaml make/container.mk
	@mkdir -p build
	@sed $(foreach pair,$(subst =,:,$(LINT_$*)),-e '/^  $(firstword $(subst :,: ,$(pair)))/,/Default:/s/Default: .*/Default: $(lastword $(subst :, ,$(pair)))/') $< >$@

test-container: $(VENV)/ready $(VENV)/sam/ready  ## the tests that need Docker and the image of `make image`
	$(BIN)/python -m pytest -m container

# In environments of their own: their pinned dependencies are at odds with ours and with each other's.
$(VENV)/%/ready: requirements-%.txt
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/pip install --quiet -r $<
	@touch $@
