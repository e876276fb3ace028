# What `make publish` builds and pushes: each image for each processor, its bill of materials beside it.
#   docker buildx bake -f docker-compose.yml [-f docker-compose.gpu.yml] -f docker-bake.hcl --print
# Build arguments and secrets are docker-compose.yml's, whose services are the targets jupyter, tensorboard and serve. A
# processor has a target of its own, so that a builder without QEMU makes its own half, and another machine the rest.

variable "REGISTRY" { default = "registry.invalid" } # with the path below it: ghcr.io/somebody
variable "NAME" { default = "trainlab" }              # of the project, from pyproject.toml; so its version
variable "VERSION" { default = "0" }
variable "BUILD" { default = "cpu" }                  # torch's: cpu or cuda
variable "SOURCE" { default = "" }                    # where the code lies
variable "REVISION" { default = "unknown" }           # its commit, and whether the tree was dirty
variable "LICENSE" { default = "" }
variable "JUPYTER_INPUTS" { default = "" }            # digests of what the images are made from (stack/images.sh),
variable "TENSORBOARD_INPUTS" { default = "" }        # which a puller compares with its own
variable "SERVE_INPUTS" { default = "" }
variable "ATTEST" { default = "" }                    # "type=provenance,mode=min" where the builder can

function "repository" {
  params = [service]
  result = "${REGISTRY}/${NAME}-${service}"
}

function "tag" {
  params = [service]
  result = service == "jupyter" ? "${VERSION}-${BUILD}" : VERSION
}

group "default" {
  targets = ["image", "bill"]
}

target "image" {
  matrix   = { service = ["jupyter", "tensorboard", "serve"], arch = ["amd64", "arm64"] }
  name     = "${service}-${arch}"
  inherits = [service]
  platforms = ["linux/${arch}"]
  tags     = ["${repository(service)}:${tag(service)}-${arch}"]
  attest   = ATTEST == "" ? [] : [ATTEST]
  labels = {
    "org.opencontainers.image.title"    = "${NAME}-${service}"
    "org.opencontainers.image.version"  = VERSION
    "org.opencontainers.image.revision" = REVISION
    "org.opencontainers.image.source"   = SOURCE == "" ? null : SOURCE
    "org.opencontainers.image.licenses" = LICENSE == "" ? null : LICENSE
    "trainlab.inputs"                   = { jupyter = JUPYTER_INPUTS, tensorboard = TENSORBOARD_INPUTS, serve = SERVE_INPUTS }[service]
  }
}

# CycloneDX, as `make sbom` writes it, read off the very image that is pushed: an image with this one file in it
target "bill" {
  matrix   = { service = ["jupyter", "tensorboard", "serve"], arch = ["amd64", "arm64"] }
  name     = "${service}-${arch}-bill"
  platforms = ["linux/${arch}"]
  contexts = { image = "target:${service}-${arch}", stack = "stack" }
  args     = { SERVICE = service }
  tags     = ["${repository(service)}:${tag(service)}-${arch}.sbom"]
  dockerfile-inline = <<EOT
FROM image AS read
ARG SERVICE
USER 0
RUN --mount=from=stack,source=sbom.py,target=/sbom.py mkdir /bill && python3 /sbom.py $SERVICE debian >/bill/sbom.cdx.json
FROM scratch
COPY --from=read /bill/sbom.cdx.json /
EOT
}
