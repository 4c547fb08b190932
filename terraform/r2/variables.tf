variable "account_id" {
  description = "The Cloudflare account's id."
  type        = string

  validation {
    condition     = can(regex("^[0-9a-f]{32}$", var.account_id))
    error_message = "An account's id has 32 hexadecimal digits."
  }
}

variable "bucket_name" {
  description = "The bucket's name. Its custom domain serves all of it, so it should hold the mirror and nothing else."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.bucket_name))
    error_message = "A bucket's name has 3 to 63 lower-case letters, digits and hyphens."
  }
}

variable "prefix" {
  description = "The mirror's prefix in the bucket, without slashes at its ends; empty for the whole bucket."
  type        = string
  default     = "inat"

  validation {
    condition     = can(regex("^([A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*)?$", var.prefix))
    error_message = "Write a prefix such as plants/inat: letters, digits, dots, hyphens and underscores, no slash at its ends."
  }
}

variable "location" {
  description = "The region of most readers and writers: apac, eeur, enam, oc, weur or wnam; null lets Cloudflare choose."
  type        = string
  default     = null

  validation {
    condition     = var.location == null ? true : contains(["apac", "eeur", "enam", "oc", "weur", "wnam"], var.location)
    error_message = "Choose apac, eeur, enam, oc, weur or wnam."
  }
}

variable "jurisdiction" {
  description = "The jurisdiction that the data must not leave: default, eu or fedramp. It is part of the endpoint's name."
  type        = string
  default     = "default"

  validation {
    condition     = contains(["default", "eu", "fedramp"], var.jurisdiction)
    error_message = "Choose default, eu or fedramp."
  }
}

variable "custom_domain" {
  description = "A host name that makes the bucket public, and the id of its zone in the same account; null keeps the bucket private."
  type = object({
    domain  = string
    zone_id = string
    min_tls = optional(string, "1.2")
  })
  default = null

  validation {
    condition     = var.custom_domain == null ? true : contains(["1.2", "1.3"], var.custom_domain.min_tls)
    error_message = "custom_domain.min_tls is 1.2 or 1.3."
  }
}

variable "cors_origins" {
  description = "Web pages that may read the images with scripts, such as https://label.example.org; none by default."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for origin in var.cors_origins : can(regex("^https?://[^/*]+$", origin))])
    error_message = "An origin is a scheme and a host without a path, such as https://label.example.org."
  }
}

variable "stale_upload_days" {
  description = "Number of days after which parts of unfinished uploads are deleted."
  type        = number
  default     = 7

  validation {
    condition     = var.stale_upload_days >= 1 && floor(var.stale_upload_days) == var.stale_upload_days
    error_message = "Write a whole number of days, at least 1."
  }
}

variable "lock_days" {
  description = "Number of days after its upload during which no token can delete or overwrite an object; 0 for no lock. gc's grace period must be at least as long, because gc cannot delete locked objects."
  type        = number
  default     = 7

  validation {
    condition     = var.lock_days >= 0 && floor(var.lock_days) == var.lock_days
    error_message = "Write a whole number of days, or 0 for no lock."
  }
}

variable "tokens" {
  description = "The tokens to create: any of writer, reader and gc. Their secrets are in Terraform's state."
  type        = set(string)
  default     = ["writer", "reader", "gc"]

  validation {
    condition     = length(setsubtract(var.tokens, ["writer", "reader", "gc"])) == 0
    error_message = "Choose among writer, reader and gc."
  }
}

variable "token_expires_on" {
  description = "When the tokens end, such as 2027-01-01T00:00:00Z; null for never."
  type        = string
  default     = null

  validation {
    condition     = var.token_expires_on == null ? true : can(regex("^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$", var.token_expires_on))
    error_message = "Write a time such as 2027-01-01T00:00:00Z."
  }
}

variable "allowed_ips" {
  description = "Networks from which the writer's and the gc's token work, such as 192.0.2.0/24; none for everywhere."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for network in var.allowed_ips : can(regex("^[0-9a-fA-F.:]+(/[0-9]{1,3})?$", network))])
    error_message = "Write addresses or networks, such as 192.0.2.7 or 192.0.2.0/24."
  }
}
