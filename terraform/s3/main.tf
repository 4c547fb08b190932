locals {
  below = var.prefix == "" ? "" : "${var.prefix}/"
}

resource "aws_s3_bucket" "mirror" {
  #checkov:skip=CKV_AWS_18:access logs of a million GETs cost more than the mirror; CloudTrail's data events can be turned on for an inquiry
  #checkov:skip=CKV_AWS_144:the cache is the other copy; add replication if you plan to delete the cache
  #checkov:skip=CKV2_AWS_62:nothing listens; add events if you need them
  #checkov:skip=CKV_AWS_145:kms_key_arn gives a KMS key; S3's own keys cost nothing per request, which matters at a million requests
  bucket = var.bucket_name
  tags   = var.tags

  lifecycle {
    # A renamed variable must not destroy a terabyte of images.
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_ownership_controls" "no_acls" {
  bucket = aws_s3_bucket.mirror.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_public_access_block" "private" {
  bucket                  = aws_s3_bucket.mirror.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_server_side_encryption_configuration" "encrypted" {
  bucket = aws_s3_bucket.mirror.id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm     = var.kms_key_arn == null ? "AES256" : "aws:kms"
      kms_master_key_id = var.kms_key_arn
    }
    # One call to KMS for many objects.
    bucket_key_enabled = var.kms_key_arn != null
  }
}

resource "aws_s3_bucket_versioning" "undo" {
  bucket = aws_s3_bucket.mirror.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "tidy" {
  bucket = aws_s3_bucket.mirror.id

  rule {
    id     = "stale-uploads-and-old-versions"
    status = "Enabled"

    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = var.stale_upload_days
    }
    noncurrent_version_expiration {
      noncurrent_days = var.noncurrent_days
    }
    expiration {
      expired_object_delete_marker = true
    }
  }

  rule {
    # Probes that mirror doctor could not delete itself, because the writer may not.
    id     = "doctors-probes"
    status = "Enabled"

    filter {
      prefix = "${local.below}doctor/"
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
    expiration {
      days = 1
    }
  }

  depends_on = [aws_s3_bucket_versioning.undo]
}

resource "aws_s3_bucket_cors_configuration" "pages" {
  count = length(var.cors_origins) == 0 ? 0 : 1

  bucket = aws_s3_bucket.mirror.id

  cors_rule {
    allowed_methods = ["GET", "HEAD"]
    allowed_origins = var.cors_origins
    expose_headers  = ["ETag", "Content-Length"]
    max_age_seconds = 3600
  }
}

data "aws_iam_policy_document" "bucket" {
  statement {
    sid     = "OnlyOverTls"
    effect  = "Deny"
    actions = ["s3:*"]
    resources = [
      aws_s3_bucket.mirror.arn,
      "${aws_s3_bucket.mirror.arn}/*",
    ]

    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }

  statement {
    sid     = "OnlyOverModernTls"
    effect  = "Deny"
    actions = ["s3:*"]
    resources = [
      aws_s3_bucket.mirror.arn,
      "${aws_s3_bucket.mirror.arn}/*",
    ]

    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "NumericLessThan"
      variable = "s3:TlsVersion"
      values   = ["1.2"]
    }
  }

  dynamic "statement" {
    for_each = aws_cloudfront_distribution.public

    content {
      # Only the objects: the catalog with its source URLs stays private.
      sid       = "CloudFrontReadsObjects"
      effect    = "Allow"
      actions   = ["s3:GetObject"]
      resources = ["${aws_s3_bucket.mirror.arn}/${local.below}objects/*"]

      principals {
        type        = "Service"
        identifiers = ["cloudfront.amazonaws.com"]
      }
      condition {
        test     = "StringEquals"
        variable = "aws:SourceArn"
        values   = [statement.value.arn]
      }
    }
  }
}

resource "aws_s3_bucket_policy" "bucket" {
  bucket = aws_s3_bucket.mirror.id
  policy = data.aws_iam_policy_document.bucket.json

  depends_on = [aws_s3_bucket_public_access_block.private]
}
