{{/* The name of every object. */}}
{{- define "watershed.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The labels that never change, by which pods are selected. */}}
{{- define "watershed.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "watershed.labels" -}}
{{ include "watershed.selector" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "watershed.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* The secret with the admin token. */}}
{{- define "watershed.adminSecret" -}}
{{- .Values.admin.existingSecret | default (printf "%s-admin" (include "watershed.name" .)) -}}
{{- end -}}

{{/* Whether the counts are in Redis. */}}
{{- define "watershed.hasStore" -}}
{{- if or .Values.store.url .Values.store.existingSecret }}true{{ end -}}
{{- end -}}

{{/* Whether the pods have TLS. */}}
{{- define "watershed.hasTls" -}}
{{- if or .Values.tls.existingSecret .Values.tls.acme }}true{{ end -}}
{{- end -}}

{{/* Combinations of TLS that could not start, or that the authority could not reach. */}}
{{- define "watershed.checkTls" -}}
{{- range list "listen" "certificates" "acme" -}}
{{- if hasKey (default dict $.Values.routes.tls) . -}}
{{- fail (printf "routes.tls.%s: the chart writes this key; see the values `tls`" .) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.routes.tls (not (include "watershed.hasTls" .)) -}}
{{- fail "routes.tls needs certificates: set tls.existingSecret or tls.acme" -}}
{{- end -}}
{{- if .Values.tls.acme -}}
{{- $challenge := .Values.tls.acme.challenge | default "http-01" -}}
{{- if and (eq $challenge "http-01") (ne (int .Values.service.port) 80) -}}
{{- fail (printf "service.port is %d, but the authority asks at port 80 (http-01): set it to 80, or tls.acme.challenge to tls-alpn-01" (int .Values.service.port)) -}}
{{- end -}}
{{- if and (eq $challenge "tls-alpn-01") (ne (int .Values.tls.port) 443) -}}
{{- fail (printf "tls.port is %d, but the authority asks at port 443 (tls-alpn-01): set it to 443, or tls.acme.challenge to http-01" (int .Values.tls.port)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Combinations that would lose counts or could not start. */}}
{{- define "watershed.check" -}}
{{- if not (has .Values.journal.volume (list "emptyDir" "claim")) -}}
{{- fail (printf "journal.volume is %q: write emptyDir or claim" .Values.journal.volume) -}}
{{- end -}}
{{- if and .Values.store.url .Values.store.existingSecret -}}
{{- fail "both store.url and store.existingSecret are set: write one of them" -}}
{{- end -}}
{{- if not (include "watershed.hasStore" .) -}}
{{- if or .Values.autoscaling.enabled (gt (int .Values.replicas) 1) -}}
{{- fail "several replicas need a common store: set store.existingSecret or store.url to a Redis or Valkey, or replicas to 1 and journal.volume to claim" -}}
{{- end -}}
{{- if ne .Values.journal.volume "claim" -}}
{{- fail "without store.url the counts are in a file beside the journal, which an emptyDir would lose: set journal.volume to claim" -}}
{{- end -}}
{{- end -}}
{{- range list "listen" "admin" "store" "journal" -}}
{{- if hasKey $.Values.routes . -}}
{{- fail (printf "routes.%s: the chart writes this key; see the values `store`, `admin` and `journal`" .) -}}
{{- end -}}
{{- end -}}
{{- include "watershed.checkTls" . -}}
{{- end -}}

{{/* The routes file: what the chart knows, and .Values.routes. */}}
{{- define "watershed.routes" -}}
{{- $store := "/var/lib/watershed/watershed.db" -}}
{{- if .Values.store.existingSecret -}}
{{- $store = "file:/run/secrets/watershed-store/url" -}}
{{- else if .Values.store.url -}}
{{- $store = .Values.store.url -}}
{{- end -}}
{{- $admin := dict "listen" "0.0.0.0:9900" "health" "0.0.0.0:9901" "token" "file:/run/secrets/watershed-admin/token" -}}
{{- if .Values.admin.tls.existingSecret -}}
{{- $folder := "/run/secrets/watershed-admin-tls" -}}
{{- $_ := set $admin "tls" (dict "cert" (printf "%s/tls.crt" $folder) "key" (printf "%s/tls.key" $folder)) -}}
{{- end -}}
{{- $journal := dict "path" "/var/lib/watershed/journal" "quota" .Values.journal.quota -}}
{{- $ours := dict "listen" "0.0.0.0:8080" "admin" $admin "store" $store "journal" $journal -}}
{{- if include "watershed.hasTls" . -}}
{{- $tls := dict "listen" "0.0.0.0:8443" -}}
{{- if .Values.tls.existingSecret -}}
{{- $folder := "/run/secrets/watershed-tls" -}}
{{- $_ := set $tls "certificates" (dict "cert" (printf "%s/tls.crt" $folder) "key" (printf "%s/tls.key" $folder)) -}}
{{- end -}}
{{- with .Values.tls.acme -}}
{{- $_ := set $tls "acme" . -}}
{{- end -}}
{{- $_ := set $ours "tls" $tls -}}
{{- end -}}
{{- toYaml (merge (deepCopy .Values.routes) $ours) -}}
{{- end -}}
