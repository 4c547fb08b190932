locals {
  below       = var.prefix == "" ? "" : "${var.prefix}/"
  day_seconds = 86400
}

resource "cloudflare_r2_bucket" "mirror" {
  account_id    = var.account_id
  name          = var.bucket_name
  location      = var.location
  jurisdiction  = var.jurisdiction
  storage_class = "Standard"

  lifecycle {
    # A renamed variable must not destroy a terabyte of images.
    prevent_destroy = true
  }
}

# r2.dev is throttled and unfit for training. It stays off, even after a user turns it on by hand.
resource "cloudflare_r2_managed_domain" "off" {
  account_id   = var.account_id
  bucket_name  = cloudflare_r2_bucket.mirror.name
  jurisdiction = var.jurisdiction
  enabled      = false
}

resource "cloudflare_r2_custom_domain" "public" {
  count = var.custom_domain == null ? 0 : 1

  account_id   = var.account_id
  bucket_name  = cloudflare_r2_bucket.mirror.name
  jurisdiction = var.jurisdiction
  domain       = var.custom_domain.domain
  zone_id      = var.custom_domain.zone_id
  enabled      = true
  min_tls      = var.custom_domain.min_tls
}

resource "cloudflare_r2_bucket_lifecycle" "tidy" {
  account_id   = var.account_id
  bucket_name  = cloudflare_r2_bucket.mirror.name
  jurisdiction = var.jurisdiction

  rules = [
    {
      id         = "stale-uploads"
      enabled    = true
      conditions = { prefix = "" }
      abort_multipart_uploads_transition = {
        condition = { type = "Age", max_age = var.stale_upload_days * local.day_seconds }
      }
    },
    {
      # Probes that mirror doctor could not delete itself.
      id         = "doctors-probes"
      enabled    = true
      conditions = { prefix = "${local.below}doctor/" }
      delete_objects_transition = {
        condition = { type = "Age", max_age = local.day_seconds }
      }
    },
  ]
}

# R2 has no permission to write without deleting, so this lock protects the images from a stolen writer's
# token. It ends with the object's age, because a permanent lock would also stop gc.
resource "cloudflare_r2_bucket_lock" "objects" {
  count = var.lock_days == 0 ? 0 : 1

  account_id   = var.account_id
  bucket_name  = cloudflare_r2_bucket.mirror.name
  jurisdiction = var.jurisdiction

  rules = [
    {
      id        = "young-objects"
      enabled   = true
      prefix    = "${local.below}objects/"
      condition = { type = "Age", max_age_seconds = var.lock_days * local.day_seconds }
    },
  ]
}

resource "cloudflare_r2_bucket_cors" "pages" {
  count = length(var.cors_origins) == 0 ? 0 : 1

  account_id   = var.account_id
  bucket_name  = cloudflare_r2_bucket.mirror.name
  jurisdiction = var.jurisdiction

  rules = [
    {
      id = "read"
      allowed = {
        methods = ["GET", "HEAD"]
        origins = var.cors_origins
      }
      expose_headers  = ["ETag", "Content-Length"]
      max_age_seconds = 3600
    },
  ]
}
