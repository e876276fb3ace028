# The commands of the stack: `make` alone lists them. The work is done in stack/ (the choice of engine, .env,
# Docker) and local/ (the same services without Docker). Variables set for make reach them as environment.
.DEFAULT_GOAL := help
.PHONY: help up down status logs shell run runs stop demo build test clean sbom publish head unhead serve unserve sweep password
-include develop/targets.mk

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo '  ENGINE=docker|podman|local and GPU=0|1 override what make picks by itself; .env holds ports and limits.'
	@echo '  Packages of your own: requirements.txt. V=1 shows all that pip and the builds of images say.'

demo: ## start both services, train an example, print its results
	@stack/verb demo

test: ## run the tests; ARGS="-k name" goes to pytest
	@stack/verb test $(ARGS)

up: ## build or install what is missing, start JupyterLab and TensorBoard, print their addresses
	@stack/verb up

down: ## stop all services and everything that runs in them
	@stack/verb down

status: ## show what runs, and where
	@stack/verb status

logs: ## show what the services say (ARGS=jupyter, tensorboard or serve for one), or a run: RUN=NAME
	@stack/verb logs $(ARGS)

shell: ## open a shell where the notebooks run
	@stack/verb shell $(ARGS)

run: ## run a notebook headless: make run ARGS="news temperature=0.1"
	@stack/verb run $(ARGS)

runs: ## list all runs: make runs ARGS="--sort val/loss"
	@stack/verb runs $(ARGS)

sweep: ## try many settings: make sweep ARGS="news temperature=0.1,0.2 --goal val/mrr" (docs/sweeps.md)
	@stack/verb sweep $(ARGS)

stop: ## stop a run; it saves a checkpoint first: make stop RUN=NAME
	@stack/verb stop

head: ## start what sweeps and trainings on several machines share (docs/hosts.md)
	@stack/verb head

unhead: ## stop it; what it holds stays
	@stack/verb unhead

serve: ## answer over HTTP from runs: make serve RUN=last; exports what is not exported (docs/serving.md)
	@stack/verb serve

unserve: ## stop that; models/ stays
	@stack/verb unserve

password: ## ask for the password of a shared stack: then make up SHARE=lab.example.org (docs/https.md)
	@stack/verb password

build: ## build the images, or install the packages
	@stack/verb build

clean: ## delete what was built; asks before it deletes anything of yours (YES=1: yes to all)
	@stack/verb clean

sbom: ## write a bill of materials (CycloneDX) of what is installed
	@stack/verb sbom

publish: ## push the images to a registry: make publish REGISTRY=ghcr.io/somebody (docs/images.md)
	@stack/verb publish $(ARGS)
