# The container image and the SAM application. Docker must run; nothing here needs an AWS account.
# BASE_IMAGE=...: another base than AWS's. PARAMETERS="Model=models/mine Quantize=int4": parameters of template.yaml.
BASE_IMAGE ?= public.ecr.aws/lambda/python:3.13
PARAMETERS ?=
export BASE_IMAGE
EVENT ?= events/direct.json
IMAGE := causallm:latest
SAM := SAM_CLI_TELEMETRY=0 AWS_DEFAULT_REGION=us-east-1 $(VENV)/sam/bin/sam
TEMPLATE_VARIANT := build/template-variant.yaml
TEMPLATE_MAP := build/template-map.yaml

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

# The linters judge only what the default parameters switch on, so they see a second copy with the rest switched on.
lint-template: $(VENV)/sam/ready $(VENV)/checkov/ready  ## validate and lint template.yaml and the Dockerfile
	@mkdir -p build
	@sed -e '/^  Api:/,/Default/s/Default: http/Default: rest-streaming/' -e '/^  Batch:/,/Default/s/Default: none/Default: sqs/' \
		-e '/^  FunctionUrl:/,/Default/s/Default: none/Default: streaming/' template.yaml >$(TEMPLATE_VARIANT)
	@sed -e '/^  Batch:/,/Default/s/Default: none/Default: map/' \
		-e '/^  BatchBucket:/,/Default/s/Default: ""/Default: files/' template.yaml >$(TEMPLATE_MAP)
	$(SAM) validate --lint
	$(VENV)/sam/bin/cfn-lint template.yaml $(TEMPLATE_VARIANT) $(TEMPLATE_MAP)
	$(VENV)/checkov/bin/checkov --quiet --compact --skip-download --file template.yaml $(TEMPLATE_VARIANT) $(TEMPLATE_MAP) Dockerfile

test-container: $(VENV)/ready $(VENV)/sam/ready  ## the tests that need Docker and the image of `make image`
	$(BIN)/python -m pytest -m container

# In environments of their own: their pinned dependencies are at odds with ours and with each other's.
$(VENV)/%/ready: requirements-%.txt
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/pip install --quiet -r $<
	@touch $@
