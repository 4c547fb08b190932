# The least permissions for each role. The writer reads and adds. It can neither delete nor overwrite an
# image or an entry of the catalog's log, so a stolen key destroys no image.
#
# A PUT must have If-None-Match there. Starting an upload in parts and sending a part are no creation, and
# cannot have it. Other files are replaced by design: format.json, gc.json, the catalog's checkpoints, probes.
data "aws_iam_policy_document" "writer" {
  source_policy_documents = [data.aws_iam_policy_document.repairer.json]

  statement {
    sid     = "AddOnly"
    effect  = "Deny"
    actions = ["s3:PutObject"]
    resources = [
      "${aws_s3_bucket.mirror.arn}/${local.below}objects/*",
      "${aws_s3_bucket.mirror.arn}/${local.below}catalog/_delta_log/*.json",
    ]

    condition {
      test     = "Null"
      variable = "s3:if-none-match"
      values   = ["true"]
    }
    condition {
      test     = "Bool"
      variable = "s3:ObjectCreationOperation"
      values   = ["true"]
    }
  }
}

# For mirror repair, which overwrites damaged objects, and for a first sync with files above 32 MiB, whose
# upload in parts has no condition. An overwritten object has an older version that can be restored.
data "aws_iam_policy_document" "repairer" {
  statement {
    sid       = "ReadAndWrite"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"]
    resources = ["${aws_s3_bucket.mirror.arn}/${local.below}*"]
  }

  statement {
    sid       = "List"
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.mirror.arn]

    condition {
      test     = "StringLikeIfExists"
      variable = "s3:prefix"
      values   = ["${local.below}*"]
    }
  }

  statement {
    sid       = "Locate"
    actions   = ["s3:GetBucketLocation"]
    resources = [aws_s3_bucket.mirror.arn]
  }
}

# Each role lists the mirror's prefix only. S3 also asks for ListBucket when a key does not exist, and then
# names no prefix. Without IfExists, it would answer 403 instead of 404.
data "aws_iam_policy_document" "reader" {
  statement {
    sid       = "Read"
    actions   = ["s3:GetObject"]
    resources = ["${aws_s3_bucket.mirror.arn}/${local.below}*"]
  }

  statement {
    sid       = "List"
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.mirror.arn]

    condition {
      test     = "StringLikeIfExists"
      variable = "s3:prefix"
      values   = ["${local.below}*"]
    }
  }

  statement {
    sid       = "Locate"
    actions   = ["s3:GetBucketLocation"]
    resources = [aws_s3_bucket.mirror.arn]
  }
}

# gc reads the catalog, deletes unreferenced objects and data files of the catalog, and aborts uploads that
# were never completed. It writes gc.json to announce its work. It can write no object and no row. Its
# deletions can be restored for noncurrent_days.
data "aws_iam_policy_document" "gc" {
  statement {
    sid       = "ReadAndAbort"
    actions   = ["s3:GetObject", "s3:AbortMultipartUpload"]
    resources = ["${aws_s3_bucket.mirror.arn}/${local.below}*"]
  }

  statement {
    sid     = "Delete"
    actions = ["s3:DeleteObject"]
    resources = [
      "${aws_s3_bucket.mirror.arn}/${local.below}objects/*",
      "${aws_s3_bucket.mirror.arn}/${local.below}catalog/part-*",
    ]
  }

  statement {
    sid       = "SayThatItIsAtWork"
    actions   = ["s3:PutObject"]
    resources = ["${aws_s3_bucket.mirror.arn}/${local.below}gc.json"]
  }

  statement {
    sid       = "List"
    actions   = ["s3:ListBucket", "s3:ListBucketMultipartUploads"]
    resources = [aws_s3_bucket.mirror.arn]

    condition {
      test     = "StringLikeIfExists"
      variable = "s3:prefix"
      values   = ["${local.below}*"]
    }
  }

  statement {
    sid       = "Locate"
    actions   = ["s3:GetBucketLocation"]
    resources = [aws_s3_bucket.mirror.arn]
  }
}

locals {
  policies = {
    writer   = data.aws_iam_policy_document.writer.json
    repairer = data.aws_iam_policy_document.repairer.json
    reader   = data.aws_iam_policy_document.reader.json
    gc       = data.aws_iam_policy_document.gc.json
  }
}

resource "aws_iam_policy" "mirror" {
  for_each = local.policies

  name        = "mirror-${each.key}-${var.bucket_name}"
  description = "Permissions of mirror's ${each.key} in ${var.bucket_name}."
  policy      = each.value
  tags        = var.tags
}

resource "aws_iam_group" "mirror" {
  for_each = var.users

  name = "mirror-${each.key}-${var.bucket_name}"
}

resource "aws_iam_group_policy_attachment" "mirror" {
  for_each = var.users

  group      = aws_iam_group.mirror[each.key].name
  policy_arn = aws_iam_policy.mirror[each.key].arn
}

resource "aws_iam_user" "mirror" {
  #checkov:skip=CKV_AWS_273:for machines outside AWS, which have no role and no single sign-on; none is created by default
  for_each = var.users

  name = "mirror-${each.key}-${var.bucket_name}"
  tags = var.tags
}

resource "aws_iam_user_group_membership" "mirror" {
  for_each = var.users

  user   = aws_iam_user.mirror[each.key].name
  groups = [aws_iam_group.mirror[each.key].name]
}
