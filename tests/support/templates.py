"""Chat templates in Jinja: ERNIE's two, as far as they are known, and strangers'; and who renders these."""

from __future__ import annotations

from ernie_rt.text.sandbox import Renderer

PLAIN = """{%- set bos = cls_token if cls_token is defined else '<|begin_of_sentence|>' -%}
{{- bos -}}
{%- for message in messages -%}
    {%- if message.role == 'system' -%}{{- message.content ~ '\\n' -}}{%- endif -%}
    {%- if message.role == 'user' -%}{{- 'User: ' ~ message.content ~ '\\n' -}}{%- endif -%}
    {%- if message.role == 'assistant' -%}{{- 'Assistant: ' ~ message.content ~ sep_token -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt is not defined or add_generation_prompt -%}{{- 'Assistant: ' -}}{%- endif -%}
"""

THINKING = """{%- set ns = namespace(last=-1) -%}
{%- for m in messages -%}{%- if m.role == 'user' -%}{%- set ns.last = loop.index0 -%}{%- endif -%}{%- endfor -%}
{{- '<|im_start|>system\\n' -}}
{%- if messages[0].role == 'system' -%}
    {{- '<system_setting>\\n' + messages[0].content + '\\n</system_setting>\\n\\n' -}}
{%- endif -%}
{{- '<global_setting>\\nthink_mode=True\\n</global_setting>' -}}
{%- if tools -%}
    {{- '\\n\\n<tool_list>\\n[' -}}
    {%- for t in tools -%}{{- t | tojson -}}{%- if not loop.last -%}{{- ',' -}}{%- endif -%}{%- endfor -%}
    {{- ']\\n</tool_list>' -}}
{%- endif -%}
{{- '<|im_end|>\\n\\n' -}}
{%- for m in messages -%}
    {%- if m.role == 'user' or (m.role == 'system' and not loop.first) -%}
        {{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n\\n' -}}
    {%- elif m.role == 'assistant' -%}
        {{- '<|im_start|>assistant\\n' -}}
        {%- set reasoning = m.reasoning_content if m.reasoning_content is string else '' -%}
        {%- if loop.index0 > ns.last and (loop.last or reasoning) -%}
            {{- '<think>\\n' + reasoning + '\\n</think>\\n' -}}
        {%- endif -%}
        {%- if m.content -%}{{- '<response>\\n' + m.content + '\\n</response>\\n' -}}{%- endif -%}
        {%- for call in m.tool_calls or [] -%}
            {{- '\\n' if loop.first and not m.content else '\\n\\n' -}}
            {{- '<tool_call>\\n' + {'name': call.function.name, 'arguments': call.function.arguments} | tojson -}}
            {{- '\\n</tool_call>\\n' -}}
        {%- endfor -%}
        {{- '<|im_end|>\\n\\n' -}}
    {%- elif m.role == 'tool' -%}
        {{- '\\n' if not loop.first and loop.previtem.role == 'tool' else '<|im_start|>tool\\n' -}}
        {{- '<tool_output>' + m.content | tojson + '</tool_output>' -}}
        {%- if loop.last or loop.nextitem.role != 'tool' -%}{{- '<|im_end|>\\n\\n' -}}{%- endif -%}
    {%- endif -%}
{%- endfor -%}
{{- '<|im_start|>assistant\\n<think>\\n' -}}
"""
"""Baidu's own renders the published conversations in the same way; its text is not known."""

PARTS = """{%- set seen = namespace(image=0, video=0) -%}
{%- macro write(content) -%}
    {%- if content is string -%}{{- content -}}
    {%- else -%}{%- for part in content -%}
        {%- if part.type == 'text' -%}{{- part.text -}}
        {%- elif part.type == 'image' -%}
            {%- set seen.image = seen.image + 1 -%}
            {{- before ~ 'Picture ' ~ seen.image ~ ':<|IMAGE_START|>' ~ image ~ '<|IMAGE_END|>' -}}
        {%- elif part.type == 'video' -%}
            {%- set seen.video = seen.video + 1 -%}
            {{- before ~ 'Video ' ~ seen.video ~ ':<|VIDEO_START|>' ~ video ~ '<|VIDEO_END|>' -}}
        {%- endif -%}
    {%- endfor -%}{%- endif -%}
{%- endmacro -%}
"""
"""Contents with pictures, each behind its number."""

TURNS = """{{- '<|begin_of_sentence|>' -}}
{%- for m in messages -%}
    {%- if m.role == 'system' -%}{{- write(m.content) ~ '\\n' -}}
    {%- elif m.role == 'user' -%}{{- 'User: ' ~ write(m.content) -}}
    {%- elif m.role == 'assistant' -%}
        {{- '\\nAssistant: ' -}}
        {%- if m.reasoning_content -%}{{- '<think>\\n' ~ m.reasoning_content ~ '\\n</think>\\n' -}}{%- endif -%}
        {{- write(m.content) ~ '<|end_of_sentence|>' -}}
    {%- endif -%}
{%- endfor -%}
"""
VISION_LANGUAGE = (
    """{%- set before, image, video = '', '<|image@placeholder|>', '<|video@placeholder|>' -%}"""
    + PARTS
    + TURNS
    + """{%- if add_generation_prompt -%}
    {{- '\\nAssistant: ' ~ ('<think>' if enable_thinking is defined and enable_thinking else '<think></think>') -}}
{%- endif -%}
"""
)
"""As the chat models' is, as far as that is known."""

CONVERTED = (
    VISION_LANGUAGE.replace("<|image@placeholder|>", "<|IMAGE_PLACEHOLDER|>")
    .replace("<|video@placeholder|>", "<|VIDEO_PLACEHOLDER|>")
    .replace("<think></think>", "<think>\\n\\n</think>\\n\\n")
)
"""As transformers has it, whose placeholders are tokens."""

VISION_THINKING = (
    """{%- set before, image, video = ' ', '<|image@placeholder|>', '<|video@placeholder|>' -%}
{%- set thinks = options is not defined or options.thinking_mode in ['open', 'true', true] -%}
"""
    + PARTS
    + TURNS.replace(
        "<|begin_of_sentence|>' -}}",
        """<|begin_of_sentence|>' -}}
{%- if messages[0].role != 'system' -%}{{- 'You are an assistant.\\n' -}}{%- endif -%}
{%- if tools -%}{{- '<tool_list>' ~ (tools | tojson) ~ '</tool_list>\\n' -}}{%- endif -%}""",
    ).replace(
        "{%- elif m.role == 'assistant'",
        """{%- elif m.role == 'tool' -%}{{- '<tool_output>' ~ write(m.content) ~ '</tool_output>' -}}
    {%- elif m.role == 'assistant'""",
    )
    + """{{- '\\nAssistant: \\n' -}}{%- if thinks -%}{{- '<think>\\n' -}}{%- endif -%}
"""
)
"""As that of VL-28B-A3B-Thinking is, as far as that is known: it has a system turn of its own, tools, and thinks."""

CHATML = """{% for message in messages %}
{% if message.role == 'tool' %}
<|im_start|>tool {{ message.name }}
{% else %}
<|im_start|>{{ message.role }}
{% endif %}
{{ message.content | trim }}<|im_end|>
{% endfor %}
{% if tools %}{{ tools | tojson(indent=2) }}{% endif %}
{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
"""Takes the white space off its contents, and writes JSON."""

CUTTING = """{%- for message in messages -%}
<|im_start|>{{ message.role }}
{{ message.content.split('</think>')[-1] }}<|im_end|>
{% endfor -%}"""
"""Cuts thinking out of contents, as many do."""

CODE = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''.__class__ }}",
    "{{ messages.__class__.__base__ }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context.cycler.__init__.__globals__.os.popen('touch CANARY').read() }}",
    "{{ cycler.__init__.__globals__.os.popen('touch CANARY').read() }}",
    "{{ joiner.__init__.__globals__.os.system('touch CANARY') }}",
    "{{ namespace.__init__.__globals__['os'].system('touch CANARY') }}",
    "{{ lipsum.__globals__['os'].popen('touch CANARY').read() }}",
    "{{ lipsum.__globals__.__builtins__.open('CANARY', 'w') }}",
    "{{ range.__class__.__base__.__subclasses__() }}",
    "{{ dict.__base__.__subclasses__() }}",
    "{{ raise_exception.__globals__['sys'].modules['os'].system('touch CANARY') }}",
    "{{ strftime_now.__globals__ }}",
    "{{ strftime_now.__code__ }}",
    "{{ ''|attr('__class__')|attr('__mro__') }}",
    "{{ ''|attr('for' ~ 'mat')('a') }}{{ '{0.__class__.__mro__}'|attr('format')('') }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(namespace) }}",
    "{{ '{x.__class__}'.format_map({'x': 1}) }}",
    "{{ ''['__class__']['__mro__'] }}",
    "{{ messages.append({'role': 'user'}) }}",
    "{{ messages[0].update({'content': 'x'}) }}",
    "{% set x = messages[0].pop('content') %}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os.system('touch CANARY') }}",
    "{% extends 'base' %}",
    "{% for x in [1] %}{{ loop.__init__.__globals__ }}{% endfor %}",
    "{% macro m() %}{% endmacro %}{{ m.__func__.__globals__ }}",
    "{{ messages|map(attribute='__class__')|list }}",
    "{{ (messages|map('attr', '__init__')|first).__globals__ }}",
    "{{ open('CANARY', 'w') }}",
    "{{ __import__('os').system('touch CANARY') }}",
    "{{ ''.join.__self__.__class__ }}",
]
"""Templates that reach for code: CANARY is a file that would be made."""
BOMBS = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{{ 'x' * 999 }}{% endfor %}{% endfor %}",
    "{{ 'a' * 10000000000 }}",
    "{{ ('a' * 300000000) | length }}",
    "{% set ns = namespace(x='aaaaaaaaaa') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "{{ 9 ** (messages | length * 99999999) }}",
    "{{ '%0999999999d' | format(1) }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{{ range(10 ** 9) | list }}",
    "{{ [[0] * 9999999] * 9999999 | length }}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "{{ 'y' * 5000000 }}",
]
"""Templates that take more time, memory or output than they may."""

CONTEXT = {"messages": [{"role": "user", "content": "hello"}], "bos_token": "<s>"}
GREETING = "{{ messages[0].content }}"


def process(renderer: Renderer) -> int:
    """The process that renders; 0 for none."""
    return 0 if renderer._worker is None else renderer._worker._child.pid
