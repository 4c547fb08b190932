variable "bucket_name" {
  description = "The bucket's name, unique in all of AWS."
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

variable "kms_key_arn" {
  description = "A KMS key to encrypt with; null encrypts with S3's own. Its policy must let the mirror's users, and CloudFront if public, use it."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null ? true : can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/.+$", var.kms_key_arn))
    error_message = "Write a key's ARN, such as arn:aws:kms:eu-central-1:111122223333:key/…."
  }
}

variable "noncurrent_days" {
  description = "Number of days for which overwritten and deleted objects can be restored. Their storage is billed as long."
  type        = number
  default     = 30

  validation {
    condition     = var.noncurrent_days >= 1 && floor(var.noncurrent_days) == var.noncurrent_days
    error_message = "Write a whole number of days, at least 1."
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

variable "cors_origins" {
  description = "Web pages that may read the images with scripts, such as https://label.example.org; none by default. CloudFront then allows all web pages, because its objects are public."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for origin in var.cors_origins : can(regex("^https?://[^/*]+$", origin))])
    error_message = "An origin is a scheme and a host without a path, such as https://label.example.org."
  }
}

variable "users" {
  description = "IAM users to create for machines outside AWS: any of writer, repairer, reader and gc. Create their keys by hand, so that Terraform's state has no secret. If you have roles, attach the policies to those instead."
  type        = set(string)
  default     = []

  validation {
    condition     = length(setsubtract(var.users, ["writer", "repairer", "reader", "gc"])) == 0
    error_message = "Choose among writer, repairer, reader and gc."
  }

  validation {
    condition     = length(var.users) == 0 || length(var.bucket_name) <= 48
    error_message = "A user is called mirror-NAME-BUCKET, and IAM takes 64 characters: with users a bucket's name may have 48."
  }
}

variable "cloudfront" {
  description = "If not null, a CloudFront distribution makes the objects public. aliases: host names of your own, with the ARN of their certificate in us-east-1."
  type = object({
    aliases         = optional(list(string), [])
    certificate_arn = optional(string)
    price_class     = optional(string, "PriceClass_100")
  })
  default = null

  validation {
    condition     = var.cloudfront == null ? true : (length(var.cloudfront.aliases) > 0) == (var.cloudfront.certificate_arn != null)
    error_message = "cloudfront.aliases and cloudfront.certificate_arn go together."
  }

  validation {
    condition     = var.cloudfront == null ? true : contains(["PriceClass_100", "PriceClass_200", "PriceClass_All"], var.cloudfront.price_class)
    error_message = "Choose PriceClass_100, PriceClass_200 or PriceClass_All."
  }
}

variable "tags" {
  description = "Tags for every resource that can have them."
  type        = map(string)
  default     = {}
}
