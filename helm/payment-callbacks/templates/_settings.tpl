{{/*
Four documents, made from .Values.settings. Each template takes and returns YAML, because templates can only return text.

- receiver.toml: the public reaches this role, so it contains no gateway's key, no database and no downstream system's secret.
- api.toml: everything except what the console alone needs.
- console.toml: everything. People sign in with the API's tokens, too.
- consumers.toml: neither the API's tokens nor what the console needs. The migration and the operator's commands read it, too.
*/}}

{{- define "payment-callbacks.settings.all" -}}
{{- $settings := deepCopy .Values.settings -}}
{{- $_ := set $settings "data_directory" "/var/lib/payment-callbacks" -}}
{{- if not $settings.database_url -}}
{{- $_ := set $settings "database_url" (dict "secret" "payment-callbacks-database" "key" "url") -}}
{{- end -}}
{{- $_ := set $settings.receiver "bind" (printf "%s:8080" .Values.bindAddress) -}}
{{- $_ := set $settings.api "bind" (printf "%s:8081" .Values.bindAddress) -}}
{{- $_ := set $settings.console "bind" (printf "%s:8082" .Values.bindAddress) -}}
{{- range $role := splitList " " (include "payment-callbacks.metricsRoles" .) -}}
{{- $_ := set (get $settings $role) "metrics_bind" (printf "%s:9090" $.Values.bindAddress) -}}
{{- end -}}
{{- toYaml $settings -}}
{{- end -}}

{{/* The roles that have their own metrics port. API and console serve their metrics on their only port. */}}
{{- define "payment-callbacks.metricsRoles" -}}
receiver ledger inquirer dispatcher
{{- end -}}

{{- define "payment-callbacks.settings.receiver" -}}
{{- $all := include "payment-callbacks.settings.all" . | fromYaml -}}
{{- range $slug, $merchant := $all.merchants -}}
{{- if and $merchant.gateway (not $merchant.required_trust) -}}
{{- $_ := set $merchant "required_trust" "query" -}}
{{- end -}}
{{- $_ := set $all.merchants $slug (omit $merchant "gateway" "refused_withholds") -}}
{{- end -}}
{{- pick $all "data_directory" "receiver" "broker" "spool" "merchants" | toYaml -}}
{{- end -}}

{{- define "payment-callbacks.settings.api" -}}
{{- omit (include "payment-callbacks.settings.all" . | fromYaml) "console" | toYaml -}}
{{- end -}}

{{- define "payment-callbacks.settings.console" -}}
{{- include "payment-callbacks.settings.all" . -}}
{{- end -}}

{{- define "payment-callbacks.settings.consumers" -}}
{{- omit (include "payment-callbacks.settings.all" . | fromYaml) "api" "console" | toYaml -}}
{{- end -}}

{{/* The document that a role reads. */}}
{{- define "payment-callbacks.document" -}}
{{- has . (list "receiver" "api" "console") | ternary . "consumers" -}}
{{- end -}}

{{/* A document as TOML: (dict "root" $ "document" "api"). */}}
{{- define "payment-callbacks.settings.toml" -}}
{{- include (printf "payment-callbacks.settings.%s" .document) .root | fromYaml | include "payment-callbacks.toml" -}}
{{- end -}}

{{/* Every secret that a document names, as lines of `name/key`. Neither can contain a slash. */}}
{{- define "payment-callbacks.settings.secrets" -}}
{{- if kindIs "map" . -}}
{{- if and (hasKey . "secret") (hasKey . "key") }}{{ .secret }}/{{ .key }}{{ "\n" }}
{{- else }}{{ range $value := . }}{{ include "payment-callbacks.settings.secrets" $value }}{{ end }}
{{- end -}}
{{- else if kindIs "slice" . -}}
{{- range . }}{{ include "payment-callbacks.settings.secrets" . }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* The projected sources that put exactly those secrets into a pod. */}}
{{- define "payment-callbacks.settings.secretSources" -}}
{{- $document := include (printf "payment-callbacks.settings.%s" .document) .root | fromYaml -}}
{{- range include "payment-callbacks.settings.secrets" $document | splitList "\n" | compact | uniq | sortAlpha }}
{{- with splitList "/" . }}
- secret:
    name: {{ index . 0 }}
    items:
      - { key: {{ index . 1 | quote }}, path: {{ join "/" . | quote }} }
{{- end }}
{{- end }}
{{- end -}}
